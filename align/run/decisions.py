"""`align decide`: who shipped or stopped which model, on the word of which report. A chain of lines, each with the hash
of the one before it, so that none can be changed or taken out without being noticed.

An entry holds the hashes of the report's numbers and of the model's weights, and is made only while both are what the
report was made of. The file is written whole under a lock: two may decide at once, and a kill leaves the old record.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from align.run.manifest import DECISIONS, now
from preferences.errors import BadInput
from preferences.files import dump_json, read_json, sha256_file, write_bytes
from preferences.terminal import on_one_line

KEYS = ("format", "decision", "model", "by", "at", "report", "metrics_sha256", "weights", "previous")
_TEXTS = ("decision", "model", "by", "at", "report", "metrics_sha256")


class Report(NamedTuple):
    """An evaluation that can be decided from: its folder, and what its manifest and its metrics say."""

    folder: Path
    manifest: dict[str, Any]
    metrics: dict[str, Any]
    metrics_sha256: str


def decide(
    report: str, decision: str, model: str, by: str, reason: str | None, record: str | None = None
) -> dict[str, Any]:
    """Append a decision, and return it. Raises BadInput where the report, its files or the record are not as they were.

    The record is `decisions.jsonl` in the report's folder, unless `record` names another file.
    """
    found = read_report(report)
    if model not in found.metrics["models"]:
        raise BadInput(f"--model {model}: not in the report; it has {', '.join(found.metrics['models'])}")
    if not by.strip():
        raise BadInput("--by: is empty; say who decides")
    for option, text in (("--by", by), ("--reason", reason or "")):
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise BadInput(f"{option}: is not UTF-8; type it anew")
    wrong = changed_since(found, model)
    if wrong:
        raise BadInput(f"{report}: {wrong[0]}; evaluate again, and decide on that")
    path = _record(found.folder, record)
    if not path.parent.is_dir():
        raise BadInput(f"--record {path}: there is no folder {path.parent}; make it first")
    with _locked(path.parent):
        data = path.read_bytes() if path.is_file() else b""
        lines = _lines(path, data)
        broken = chain_faults(path, lines)
        if broken:
            raise BadInput(f"{broken[0]}; nothing is added to a record that can't be trusted")
        entry: dict[str, Any] = {
            "format": 1,
            "decision": decision,
            "model": model,
            "source": found.metrics["models"][model].get("source"),
            "weights": weights_of(found.manifest, model),
            "by": by.strip(),
            "reason": reason,
            "at": now(),
            "report": os.path.relpath(found.folder.resolve(), path.parent.resolve()),
            "title": found.metrics.get("title"),
            "metrics_sha256": found.metrics_sha256,
            "previous": _hash(lines[-1]) if lines else None,
        }
        write_bytes(path, data + dump_json(entry).encode() + b"\n")
    return entry


def read_report(report: str) -> Report:
    """A finished evaluation: its folder, or its metrics.json. Raises BadInput."""
    path = Path(report)
    folder = path if path.is_dir() else path.parent
    manifest = read_json(folder / "manifest.json")
    if manifest.get("verb") != "evaluate":
        raise BadInput(f"{report}: not an evaluation's folder; decide on what `align evaluate` wrote")
    if manifest.get("status") != "finished":
        raise BadInput(f"{report}: an evaluation that is not finished ({manifest.get('status')}); go on by --resume")
    metrics = read_json(folder / "metrics.json")
    models = metrics.get("models")
    if not isinstance(models, dict) or not all(isinstance(facts, dict) for facts in models.values()):
        raise BadInput(f"{folder / 'metrics.json'}: names no models; evaluate again")
    hashes = manifest.get("results_sha256")
    if not isinstance(hashes, dict) or "metrics.json" not in hashes or not isinstance(manifest.get("inputs"), dict):
        raise BadInput(
            f"{folder / 'manifest.json'}: does not say by hashes what was evaluated and what came of it; evaluate again"
        )
    return Report(folder, manifest, metrics, sha256_file(folder / "metrics.json"))


def changed_since(report: Report, model: str) -> list[str]:
    """What of the report's own files, and of the model's weights, is not what it was when the report was made."""
    wrong = []
    for name, digest in (report.manifest.get("results_sha256") or {}).items():
        path = report.folder / name
        if not path.is_file():
            wrong.append(f"{name} is gone")
        elif sha256_file(path) != digest:
            wrong.append(f"{name} is not what the evaluation wrote")
    for folder, files in weights_of(report.manifest, model).items():
        for name, digest in files.items():
            path = Path(folder) / name
            if not path.is_file():
                wrong.append(f"the weights {path} of {model} are gone")
            elif sha256_file(path) != digest:
                wrong.append(f"the weights {path} of {model} are not those that were evaluated")
    return wrong


def weights_of(manifest: dict[str, Any], model: str) -> dict[str, dict[str, str]]:
    """{folder: {file: SHA-256}} of a model's weights on this machine; empty for one behind an endpoint."""
    facts = manifest["inputs"].get(f"model {model}")
    hashes = facts.get("sha256") if isinstance(facts, dict) else None
    if facts is not None and not isinstance(hashes, dict):
        raise BadInput(f"manifest.json: what it says of the model {model} is damaged; evaluate again")
    return {folder: files for folder, files in (hashes or {}).items() if isinstance(files, dict)}


# --- reading the record -----------------------------------------------------------------------------------------


def read_record(report: str, record: str | None) -> tuple[Path, list[dict[str, Any]], list[str]]:
    """(the record's path, its entries, what is wrong with it or its reports). Raises BadInput where there is none.

    A report or weights that are no longer there can't be checked, and are no fault.
    """
    folder = Path(report) if Path(report).is_dir() else Path(report).parent
    path = _record(folder, record)
    if not path.is_file():
        raise BadInput(
            f"{path}: nothing is decided there yet; decide with: align decide {report} ship --model NAME --by WHO"
        )
    lines = _lines(path, path.read_bytes())
    if not lines:
        raise BadInput(f"{path}: is empty, and a record never is; put the whole file back, or delete it")
    faults = chain_faults(path, lines)
    entries = []
    for number, line in enumerate(lines, start=1):
        entry = _entry(line)
        if entry is None:
            continue
        entries.append(entry)
        metrics = path.parent / entry["report"] / "metrics.json"
        if os.path.isfile(metrics) and sha256_file(metrics) != entry["metrics_sha256"]:
            faults.append(f"{path}, line {number}: {metrics} is not the report that was decided on")
    return path, entries, faults


def chain_faults(path: Path, lines: list[bytes]) -> list[str]:
    """Where lines are no decisions, or don't follow the one before them."""
    faults = []
    before: str | None = None
    for number, line in enumerate(lines, start=1):
        entry = _entry(line)
        if entry is None:
            faults.append(f"{path}, line {number}: not a decision")
        elif entry["previous"] != before:
            faults.append(f"{path}, line {number}: does not follow the line before it, which was changed or taken out")
        before = _hash(line)
    return faults


def head(path: Path) -> str:
    """The hash of the last line. Who keeps it elsewhere will notice if lines are taken off the end."""
    return _hash(_lines(path, path.read_bytes())[-1])


def _record(folder: Path, record: str | None) -> Path:
    """Where the record is, or will be. Raises BadInput for what is there and no file: a rename would replace it."""
    path = Path(record) if record is not None else folder / DECISIONS
    if path.exists() and not path.is_file():
        raise BadInput(f"{path}: is no file that a record could be in; name another by --record")
    return path


def _lines(path: Path, data: bytes) -> list[bytes]:
    if data and not data.endswith(b"\n"):
        raise BadInput(f"{path}: its last line is cut off; put the whole file back")
    return data.splitlines()


def _entry(line: bytes) -> dict[str, Any] | None:
    """The decision in a line; None where it is none that `decide` wrote."""
    try:
        value = json.loads(line)
        dump_json(value).encode()
    except (ValueError, RecursionError):  # also NaN, and half a character
        return None
    fits = isinstance(value, dict) and all(key in value for key in KEYS) and isinstance(value["weights"], dict)
    return value if fits and all(isinstance(value[key], str) and "\0" not in value[key] for key in _TEXTS) else None


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Only one at a time may write the record in this folder. The lock ends with the process, however that ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def in_words(entries: list[dict[str, Any]]) -> str:
    """The record for people, a line a decision."""
    rows = []
    for one in entries:
        report = "" if one["report"] == "." else one["report"]  # the record lies in the report's own folder
        cells = (one["at"], one["decision"], one["model"], f"by {one['by']}", report)
        rows.append([on_one_line(text) for text in cells])
    wide = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, wide, strict=True)).rstrip() for row in rows]
    return "\n".join(
        line + (f"\n    {on_one_line(str(entry['reason']))}" if entry.get("reason") else "")
        for line, entry in zip(lines, entries, strict=True)
    )
