"""`align runs`: the runs of a folder, what two of them differ in, and whether one can be made again.

What it reads may be half-written, or damaged: that is said in the list, and stops nothing.
"""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from align.run.manifest import versions
from preferences.errors import BadInput
from preferences.files import read_json, read_jsonl, sha256_file
from preferences.terminal import on_one_line

# What says most of a run of each verb, of what it logged last; the first that is there.
_TELLING = {
    "sft": ("eval_loss", "loss", "train_loss"),
    "reward": ("eval_accuracy", "accuracy"),
    "dpo": ("eval_rewards/accuracies", "rewards/accuracies", "eval_loss", "loss"),
    "kto": ("eval_loss", "loss"),
    "ppo": ("eval/scores", "objective/scores"),
    "rloo": ("eval_reward", "reward"),
    "grpo": ("eval_reward", "reward"),
}
LONGEST = 40  # characters of a path in the list
_PLACE = ("output_dir",)  # keys of a recipe that say where, not what
_SECRET = re.compile(r"(^|_)(token|secret|password|api_key|credentials?)$")  # keys whose values nobody is shown


class Listed(NamedTuple):
    """A run as the list has it. `status`: "finished", "not finished", or "broken", then `problem` says why."""

    folder: str
    verb: str | None
    status: str
    model: str | None
    data: str | None
    started_at: str | None
    seconds: float | None
    result: str | None
    parents: list[str]
    problem: str | None = None


def list_runs(folder: str | Path) -> list[Listed]:
    """The runs in a folder and below it, the oldest first; or the one that the folder is. Raises BadInput."""
    if not Path(folder).is_dir():
        raise BadInput(f"{folder}: no such folder")
    found = [listed(path) for path in _run_folders(Path(folder))]
    return sorted(found, key=lambda run: (run.started_at or "", run.folder))


def _run_folders(folder: Path) -> Iterator[Path]:
    """Folders that a run made, or began to make. Nothing below one of them is a run of its own."""
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if _looks_like_a_run(Path(path), files):
            folders.clear()
            yield Path(path)


def _looks_like_a_run(folder: Path, files: Sequence[str]) -> bool:
    if "manifest.json" not in files:
        return "recipe.yaml" in files and "metrics.jsonl" in files
    try:
        return "verb" in read_json(folder / "manifest.json")
    except BadInput:
        return "rankings.jsonl" not in files  # a damaged preferences folder is no run


def listed(folder: Path) -> Listed:
    """What the list says of one run. Never raises for what stands in its files."""
    try:
        manifest = read_json(folder / "manifest.json")
    except BadInput as error:
        return Listed(str(folder), None, "broken", None, None, None, None, None, [], f"{error}")
    verb, status = _text(manifest.get("verb")), manifest.get("status")
    seconds = _number(manifest.get("seconds"))
    problem = None
    result = None
    try:
        result = _result(folder, verb or "")
    except (BadInput, OSError) as error:
        problem = f"{error}"
    if verb is None or status not in ("finished", "running", "stopped"):
        problem = "manifest.json does not say what ran, and how it ended"
    return Listed(
        folder=str(folder),
        verb=verb,
        status="broken" if problem else "finished" if status == "finished" else "not finished",
        model=_model(manifest),
        data=_text(_at(manifest, "inputs", "dataset", "name")),
        started_at=_text(manifest.get("started_at")),
        seconds=seconds if seconds is not None and seconds >= 0 and status == "finished" else None,
        result=result,
        parents=[text for one in _list(manifest.get("parents")) if (text := _text(_at(one, "folder")))],
        problem=problem,
    )


def _model(manifest: Mapping[str, Any]) -> str | None:
    """The model that was trained, or the names of those that were compared."""
    name = _text(_at(manifest, "inputs", "model", "name"))
    models = _at(manifest, "recipe", "models")
    return name or (", ".join(map(str, models)) if isinstance(models, dict) else None)


def _result(folder: Path, verb: str) -> str | None:
    """The number that says most, in words: win rates of an evaluation, else what was logged last."""
    if verb == "evaluate":
        rates = [
            f"{model} {rate:.0%} ({_at(pair, 'interval')[0]:.0%}–{_at(pair, 'interval')[1]:.0%})"
            for model, pair in _verdicts(folder)
            if (rate := _number(_at(pair, "win_rate"))) is not None and _is_interval(_at(pair, "interval"))
        ]
        return ", ".join(rates) or None
    if verb == "export":
        same = _at(read_json(folder / "manifest.json"), "proof", "within_tolerance")
        return None if same is None else "the same model" if same else "not the same model"
    last = last_metrics(folder)
    name = next((name for name in _TELLING.get(verb, ()) if name in last), None)
    return None if name is None else f"{name} {last[name]:.3g}"


def _verdicts(folder: Path) -> Iterator[tuple[str, Any]]:
    """(model, its comparison with the base) by the judge that decides."""
    path = folder / "metrics.json"
    if not path.is_file():
        return
    metrics = read_json(path)
    models = metrics.get("models")
    for model, facts in models.items() if isinstance(models, dict) else ():
        judges = _dict(_at(facts, "judges"))
        by = metrics.get("verdict_by") or next(iter(judges), None)
        if isinstance(by, str) and by in judges:
            yield str(model), judges[by]


def last_metrics(folder: Path) -> dict[str, float]:
    """The last value of everything that a run logged. A line that was cut off by a kill is left out."""
    path = folder / "metrics.jsonl"
    found: dict[str, float] = {}
    if path.is_file():
        try:
            for _, row in read_jsonl(path):
                found |= {name: value for name, one in row.items() if (value := _number(one)) is not None}
        except BadInput:
            if path.read_bytes().endswith(b"\n"):
                raise
    return found


# --- two and more, side by side ---------------------------------------------------------------------------------


def compare_runs(folders: Sequence[str]) -> dict[str, Any]:
    """What runs differ in, a list of values each: recipe keys, inputs (by hash), versions; and their metrics, all.

    Raises BadInput for a folder that is no run.
    """
    manifests = [read_manifest(folder) for folder in folders]

    def differ(parts: list[dict[str, Any]]) -> dict[str, list[Any]]:
        keys = dict.fromkeys(key for part in parts for key in part)
        rows = {key: [part.get(key) for part in parts] for key in keys}
        return {key: values for key, values in rows.items() if any(value != values[0] for value in values)}

    recipes = [
        {key: _secret(key, value) for key, value in _dict(manifest.get("recipe")).items() if key not in _PLACE}
        for manifest in manifests
    ]
    inputs = [
        {role: _input_words(facts) for role, facts in _dict(manifest.get("inputs")).items()} for manifest in manifests
    ]
    made_by = [
        {
            **_dict(manifest.get("versions")),
            "commit": manifest.get("git_commit"),
            "processes": manifest.get("processes"),
        }
        for manifest in manifests
    ]
    numbers = [_metrics(Path(folder), _text(m.get("verb")) or "") for folder, m in zip(folders, manifests, strict=True)]
    return {
        "runs": list(folders),
        "verbs": [manifest.get("verb") for manifest in manifests],
        "recipe": differ(recipes),
        "inputs": differ(inputs),
        "versions": differ(made_by),
        "metrics": {
            name: [part.get(name) for part in numbers]
            for name in dict.fromkeys(name for part in numbers for name in part)
        },
    }


def _secret(key: str, value: Any) -> Any:
    """A value that may be shown: of a key like `hub_token` only whether there is one; no NaN, which equals nothing."""
    if _SECRET.search(key) and value is not None:
        return "(not shown)"
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _metrics(folder: Path, verb: str) -> dict[str, float]:
    if verb != "evaluate":
        return last_metrics(folder)
    found = {}
    for model, pair in _verdicts(folder):
        for key in ("win_rate", "length_controlled_win_rate", "n"):
            value = _number(_at(pair, key))
            if value is not None:
                found[f"{model} {key}"] = value
    return found


def _input_words(facts: Any) -> str:
    """What went in, by name, with what is hashed of it."""
    hashes = dict(_files(facts))
    digest = " ".join(f"{Path(file).name} {value[:12]}" for file, value in hashes.items())
    return f"{_at(facts, 'name')}" + (f" ({digest})" if digest else "")


# --- again ------------------------------------------------------------------------------------------------------


def again(folder: str) -> tuple[str, str, list[str]]:
    """(verb, recipe file, what is not as it was but does no harm) of a run that is to be made again.

    Raises BadInput where its inputs are no longer what they were, or its recipe file is not what the run was made by.
    """
    manifest = read_manifest(folder)
    verb, recipe = _text(manifest.get("verb")), Path(folder) / "recipe.yaml"
    if verb in (None, "export") or not isinstance(manifest.get("recipe"), dict):
        raise BadInput(f"{folder}: its manifest.json has no verb or no recipe; there is nothing to run")
    from align.config import read_recipe

    if read_recipe(recipe, []) != manifest["recipe"]:
        raise BadInput(f"{recipe}: is not the recipe that the run was made by, which stands in manifest.json")
    processes = manifest.get("processes", 1)
    if processes != 1:
        raise BadInput(
            f"{folder}: had {processes} processes; launch it yourself:"
            f" align {verb} {recipe} --output_dir NEW --accelerate_config NAME"
        )
    wrong = changed_inputs(_dict(manifest.get("inputs")))
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise BadInput(
            f"{folder}: {wrong[0]}{more}, so it would be another run; align {verb} {recipe} runs it as it is"
        )
    before, current = _dict(manifest.get("versions")), versions()
    differ = [
        f"{name} was {before.get(name)} and is {current.get(name)}"
        for name in dict.fromkeys([*before, *current])
        if before.get(name) != current.get(name)
    ]
    return verb, str(recipe), differ


def changed_inputs(inputs: Mapping[str, Any]) -> list[str]:
    """What of a run's hashed inputs is gone or other than it was."""
    wrong = []
    for role, facts in inputs.items():
        for file, digest in _files(facts):
            if not Path(file).is_file():
                wrong.append(f"its {role} {file} is gone")
            elif sha256_file(file) != digest:
                wrong.append(f"its {role} {file} has changed")
    return wrong


def _files(facts: Any) -> Iterator[tuple[str, str]]:
    """(file, hash) of what a manifest says of one input: data by files of `name`, models by folders of files."""
    name, hashes = _text(_at(facts, "name")) or "", _dict(_at(facts, "sha256"))
    for key, value in hashes.items():
        if isinstance(value, dict):
            yield from ((str(Path(key) / file), str(digest)) for file, digest in value.items())
        else:
            path = Path(name).expanduser()
            yield str(path / key if path.is_dir() or path.name != key else path), str(value)


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a run. Raises BadInput."""
    if not Path(folder).is_dir():
        raise BadInput(f"{folder}: no such folder")
    if not (Path(folder) / "manifest.json").is_file():
        raise BadInput(f"{folder}: not a run; it has no manifest.json")
    manifest = read_json(Path(folder) / "manifest.json")
    if "verb" not in manifest:
        raise BadInput(f"{folder}: not a run; its manifest.json is of something else")
    return manifest


# --- words ------------------------------------------------------------------------------------------------------


def list_in_words(runs: Sequence[Listed]) -> str:
    """The list for people: a line a run, then what is wrong with the broken ones."""
    if not runs:
        return "no runs there"
    head = ["run", "verb", "status", "started", "took", "model", "data", "result", "from"]
    rows = [
        [
            run.folder,
            run.verb or "?",
            run.status,
            (run.started_at or "?")[:16].replace("T", " "),
            "" if run.seconds is None else duration(run.seconds),
            _end_of(run.model or ""),
            _end_of(run.data or ""),
            run.result or "",
            ", ".join(Path(parent).name for parent in run.parents),
        ]
        for run in runs
    ]
    return "\n".join(
        [*_table([head, *rows]), *(on_one_line(f"{run.folder}: {run.problem}") for run in runs if run.problem)]
    )


def comparison_in_words(found: Mapping[str, Any]) -> str:
    """The comparison for people: a table a part, with a column a run."""
    lines: list[str] = []
    parts = {
        "recipe": "Recipe keys that differ",
        "inputs": "Inputs that differ",
        "versions": "Made by",
        "metrics": "Metrics, the last values",
    }
    for part, title in parts.items():
        rows = [[key, *(_short(value) for value in values)] for key, values in found[part].items()]
        if rows:
            lines += ["", title, *_table([["", *found["runs"]], *rows])]
        elif part != "metrics":
            lines += ["", f"{title}: none" if part != "versions" else "Made by the same versions"]
    return "\n".join(lines[1:])


def duration(seconds: float) -> str:
    """Seconds as people say them: "40 s", "12 min", "3 h 20 min"."""
    from align.run.progress import time_left

    return time_left(seconds)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)


def _end_of(path: str) -> str:
    """A long path by its end, which tells more."""
    return path if len(path) <= LONGEST else f"…{path[1 - LONGEST :]}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    rows = [[on_one_line(cell) for cell in row] for row in rows]
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, wide, strict=True)).rstrip() for row in rows]


# --- values of files that may be anything -----------------------------------------------------------------------


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> float | None:
    """A finite number as a float; None for anything else."""
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:  # 400 digits
        return None
    return number if math.isfinite(number) else None


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_number(end) is not None for end in value)
