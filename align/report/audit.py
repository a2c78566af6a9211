"""The audit as one self-contained page; audit.html.jinja has its layout, style.css.jinja its look.

Rows of training data are hostile text: see html.py. Personal data and slurs are masked before they come here.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from align.audit.audit import sized
from align.audit.verdicts import shortened
from align.report.html import environment
from align.report.plots import axis, number, track
from align.report.words import percent
from align.run.manifest import Run
from align.run.progress import say
from preferences.errors import BadInput
from preferences.files import write_text

SIGNS = {"stop": "✕", "warn": "!", "ok": "✓", "skipped": "–"}
_MOST_BARS = 12


def write_audit(folder: str | Path, found: Mapping[str, Any]) -> Path:
    """Write audit.json and audit.html into a folder, made if need be, each whole or not at all; the page's path.
    Raises BadInput.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, FileNotFoundError, PermissionError) as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror}; name a folder") from None
    page = environment().get_template("audit.html.jinja").render(**context(found))
    text = json.dumps(found, ensure_ascii=False, indent=1, sort_keys=True, allow_nan=False) + "\n"
    for name, content in (("audit.json", text), ("audit.html", page)):
        write_text(folder / name, content.encode("utf-8", "replace").decode("utf-8"))  # a lone surrogate is not UTF-8
    return folder / "audit.html"


def keep_audit(run: Run, found: Mapping[str, Any] | None) -> None:
    """Leave an audit in a run folder, note its verdicts in the manifest, and say what it warns of."""
    if found is None:
        return
    run.manifest["audit"] = {check["check"]: check["verdict"] for check in found["checks"]}
    run.manifest["audit_allowed"] = found["allowed"]
    run.save()
    if run.writes:
        page = write_audit(run.folder, found)
        warns = [check["check"] for check in found["checks"] if check["verdict"] == "warn"]
        say(f"audit of {found['data']}: {'look at ' + ', '.join(warns) if warns else 'nothing to worry about'}; {page}")


def context(found: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the template shows."""
    checks = [{**check, "sign": SIGNS[check["verdict"]], "picture": _picture(check)} for check in found["checks"]]
    return {
        "data": found["data"],
        "headline": _headline(found),
        "parts": [sized(part) for part in found["rows"]],
        "kind": found["kind"],
        "loud": [check for check in checks if check["verdict"] in ("stop", "warn")],
        "quiet": [check for check in checks if check["verdict"] == "ok"],
        "skipped": [check for check in checks if check["verdict"] == "skipped"],
        "allowed": found["allowed"],
        "axis": axis(),
    }


def _headline(found: Mapping[str, Any]) -> str:
    stops = [check["title"] for check in found["checks"] if check["verdict"] == "stop"]
    warns = sum(check["verdict"] == "warn" for check in found["checks"])
    if stops:
        return f"Don't train on this yet: {stops[0][0].lower()}{stops[0][1:].rstrip('?')}" + (
            f", and {len(stops) - 1} more." if len(stops) > 1 else "."
        )
    if warns:
        return "One thing to look at." if warns == 1 else f"{warns} things to look at."
    return "Nothing to worry about was found."


def _picture(check: Mapping[str, Any]) -> Markup | None:
    """What a number alone does not show: an interval around a half, bars of models, languages and tags, a limit."""
    if check["verdict"] == "skipped":
        return None
    name, value, facts = check["check"], check["number"], check["facts"]
    if check["interval"]:
        return track(value, check["interval"], label=f"{check['title']} {percent(value)}") + axis()
    if name == "models":
        wins = sorted(facts.items(), key=lambda one: (-one[1]["pairs"], one[0]))
        return bars([(model, one["won"] / one["pairs"], f"of {one['pairs']:,}") for model, one in wins], half=True)
    if name == "languages":
        total = sum(facts["languages"].values())
        return bars([(language, count / total, "") for language, count in facts["languages"].items()])
    if name == "tags":
        most = max(facts["rows"].values())
        return bars([(tag, count / most, f"{count:,} rows") for tag, count in facts["rows"].items()], shares=False)
    if value and (check["limits"]["warn"] or check["limits"]["stop"]):
        return gauge(value, check["limits"]["warn"], check["limits"]["stop"])
    return None


def bars(rows: list[tuple[str, float, str]], *, half: bool = False, shares: bool = True) -> Markup:
    """A bar for each (name, length from 0 to 1, what to say besides); `half` marks 50%."""
    drawn = []
    for name, length, words in rows[:_MOST_BARS]:
        mark = Markup('<line class="zero" x1="50%" x2="50%" y1="0" y2="100%"/>') if half else Markup("")
        drawn.append(
            Markup(
                '<div class="row bar"><span class="label">{}</span><svg height="14" aria-hidden="true">'
                '<rect class="rail" width="100%" height="14" rx="3"/>'
                '<rect class="part" width="{:.2f}%" height="14" rx="3"/>'
                '{}</svg><span class="value">{} <small>{}</small></span></div>'
            ).format(shortened(name), 100 * length, mark, percent(length) if shares else "", words)
        )
    more = len(rows) - len(drawn)
    note = Markup('<p class="note">and {:,} more</p>').format(more) if more > 0 else Markup("")
    return Markup("").join([*drawn, note])


def gauge(value: float, warn: float | None, stop: float | None) -> Markup:
    """A share as a bar, with marks where it warns and stops."""
    marks = [(mark, words) for mark, words in ((warn, "warns"), (stop, "stops")) if mark is not None and mark > 1e-6]
    most = min(1.0, 1.25 * max(value, *(mark for mark, _ in marks))) if marks else min(1.0, 1.25 * value)
    parts = [
        Markup('<rect class="rail" width="100%" height="14" y="2" rx="3"/>'),
        Markup('<rect class="part" width="{:.2f}%" height="14" y="2" rx="3"/>').format(100 * min(1.0, value / most)),
    ]
    for mark, words in marks:
        at = f"{100 * mark / most:.2f}%"
        anchor = "end" if mark / most > 0.85 else "middle" if mark / most > 0.08 else "start"
        parts.append(Markup('<line class="zero" x1="{0}" x2="{0}" y1="0" y2="20"/>').format(at))
        label = f"{words} at {number(100 * mark)}%"
        parts.append(Markup('<text x="{}" y="34" text-anchor="{}">{}</text>').format(at, anchor, label))
    return Markup('<svg class="gauge" height="38" role="img" aria-label="{}">{}</svg>').format(
        f"{number(100 * value)}%", Markup("").join(parts)
    )
