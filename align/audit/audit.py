"""Would this data train a bad model, or make its evaluation wrong? Checks with a verdict each, before training.

`audit` has the files beside this one find things, and gathers what they say; docs/audit.md has the table of checks. A
verdict is "ok", "warn" (look at it), "stop" (training or its evaluation would be wrong) or "skipped" (nothing to judge
by).
"""

import difflib
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.audit import balance, checks
from align.audit.copies import compare
from align.audit.rows import Data, Kind, Part, read_data
from align.audit.texts import FINDERS, scan
from align.audit.verdicts import LIMITS, Rows
from preferences.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = 1
_MANY = 20_000  # rows, from which a second process is worth its start
_CHUNK = 4_000  # rows a task of that process


def audit(
    data: Data,
    evaluated_on: Sequence[Data] = (),
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    limit: int | None = None,
    allow: Sequence[str] = (),
) -> dict[str, Any]:
    """All checks of a data set, as audit.json holds them.

    evaluated_on: other data that a model of this one will be judged by, or its held-out splits where it has some.
    limit: the most tokens that a row may have.
    allow: checks that may not stop; their verdict becomes "warn", and `allowed` names them. One text may name several,
        with commas between.
    """
    parts = list(data.parts)
    for other in evaluated_on:
        held = [part for part in other.parts if part.held_out] or other.parts
        for part in held:
            name = other.name if len(held) == 1 else f"{other.name}, {part.name}"
            place = part.place if part.place.startswith(Path(other.name).name) else f"{other.name}: {part.place}"
            parts.append(Part(name, place, True, part.rows, elsewhere=True))
    sizes: dict[tuple[str, bool], Counter[str]] = {}
    for part in parts:
        ties = sum(row.preference == 0.5 for row in part.rows)
        sizes.setdefault((part.name, part.held_out), Counter()).update(rows=len(part.rows), ties=ties)
    found = _look(parts, data.kind)
    results = [*checks.all_of(found), *balance.all_of(found, data, tokenizer, limit)]
    may = check_names(allow, "allow")
    allowed = [check.check for check in results if check.verdict == "stop" and check.check in may]
    for check in results:
        if check.check in allowed:
            check.verdict = "warn"
    worst = [verdict for verdict in ("stop", "warn", "ok") if any(check.verdict == verdict for check in results)]
    results.sort(key=lambda check: ["stop", "warn", "ok", "skipped"].index(check.verdict))
    return {
        "format": FORMAT,
        "data": data.name,
        "kind": data.kind,
        "verdict": worst[0],
        "allowed": allowed,
        "rows": [{"part": name, "held_out": held_out, **counts} for (name, held_out), counts in sizes.items()],
        "checks": [asdict(check) for check in results],
    }


def audit_for_training(
    name: str,
    kind: Kind | None,
    *,
    config: str | None = None,
    splits: Sequence[str] = ("train",),
    evaluated_on: str | None = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    limit: int | None = None,
    allow: Sequence[str] = (),
) -> dict[str, Any] | None:
    """The audit of what a run is about to train on; None in all but the main process. Raises BadInput on a stop.

    splits: the one that trains, and those that the run looks at besides. What else the data holds out is audited, too:
    the model will be judged by it.
    """
    if os.environ.get("RANK", "0") != "0":
        return None
    others = [read_data(evaluated_on, kind, config)] if evaluated_on else []
    found = audit(read_data(name, kind, config, splits[0], splits), others, tokenizer, limit, allow)
    sentence = refusal(found, "`allow: [CHECK]` in the recipe, or --allow CHECK")
    if sentence:
        raise BadInput(sentence)
    return found


def check_names(names: Sequence[str], where: str) -> list[str]:
    """The checks that are named, each alone or several with commas between. Raises ValueError for what is no check."""
    found = [name.strip() for several in names for name in several.split(",")]
    for name in found:
        if name not in LIMITS:
            near = difflib.get_close_matches(name, LIMITS, n=1, cutoff=0.0)[0]
            raise ValueError(f"{where}: there is no check {name!r}; the nearest is {near!r}")
    return found


def refusal(found: dict[str, Any], allow: str) -> str | None:
    """One sentence about the first check that stops, and how to `allow` it; None where nothing stops."""
    stops = [check for check in found["checks"] if check["verdict"] == "stop"]
    if not stops:
        return None
    names = [check["check"] for check in stops]
    first = stops[0]
    where = f"; the first is {' and '.join(first['examples'][0]['where'])}" if first["examples"] else ""
    return (
        f"{found['data']}: the audit stops at {', '.join(names)}: {first['says'].rstrip('.')}{where};"
        f" mend the data, or allow it with {allow.replace('CHECK', ','.join(names))}"
    )


def summary(found: dict[str, Any]) -> str:
    """The audit as lines for a terminal."""
    rows = ", ".join(sized(part) for part in found["rows"])
    lines = [f"{found['data']}: {rows} rows of {found['kind']}"]
    for check in found["checks"]:
        lines.append(f"  {check['verdict']:<8}{check['check']:<16}{check['says']}")
        if check["verdict"] in ("warn", "stop") and check["examples"]:
            places = [" = ".join(example["where"]) for example in check["examples"][:3]]
            lines.append(f"{'':<26}{'; '.join(places)}")
    return "\n".join(lines)


def sized(part: dict[str, Any]) -> str:
    """How many rows a part has, and how many of them are ties: `48 train (42 pairs and 6 ties)`."""
    rows, ties = part["rows"], part["ties"]
    apart = f" ({rows - ties:,} pairs and {ties:,} tie{'s' * (ties != 1)})" if ties else ""
    return f"{rows:,} {part['part']}{apart}"


def _look(parts: list[Part], kind: str) -> Rows:
    """Compare and scan all texts, in two processes where there are many."""
    rows = [row for part in parts for row in part.rows]
    trains = sum(len(part.rows) for part in parts if not part.held_out)
    tasks = [
        (name, start, [getattr(row, name) or "" for row in rows[start : start + _CHUNK]])
        for name in ("prompt", "chosen", "rejected")
        for start in range(0, trains, _CHUNK)
    ]
    hits: dict[tuple[str, str], list[int]] = {}

    def take(name: str, start: int, found: dict[str, list[int]]) -> None:
        for finder, numbers in found.items():
            hits.setdefault((finder, name), []).extend(start + number for number in numbers if start + number < trains)

    if trains < _MANY:
        for name, start, texts in tasks:
            take(name, start, scan(texts, _finders(name)))
        copies = compare(parts)
    else:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            running: list[tuple[str, int, Future[dict[str, list[int]]]]] = [
                (name, start, pool.submit(scan, texts, _finders(name))) for name, start, texts in tasks
            ]
            copies = compare(parts)
            for name, start, future in running:
                take(name, start, future.result())
    return Rows(parts, kind, rows, copies, hits, trains)


def _finders(name: str) -> tuple[str, ...]:
    return ("personal_data", "slurs") if name == "prompt" else tuple(FINDERS)
