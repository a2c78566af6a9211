"""The run folder: opened before a run, closed after it, and what its manifest says about where a run came from.

runs/dpo/
  manifest.json     what made this folder: recipe, inputs and their hashes, parents, versions, commit, seed, times
  recipe.yaml       the resolved recipe; `align VERB recipe.yaml` makes the run again
  metrics.jsonl     one line a logged step
  ...               the verb's own results: weights, samples, report.html
"""

import errno
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from align.run.checkpoint import clear_torn
from align.run.progress import say
from align.run.remote import Mirror, named
from align.run.stopping import opened
from preferences.errors import BadInput
from preferences.files import read_json, sha256_file, sha256_json, write_text

# What a killed run leaves of a file or checkpoint that it was writing: see preferences.files
_UNFINISHED = re.compile(r"\.(checkpoint-\d+|\w+\.(json|jsonl|yaml))(\.old)?\.[a-z0-9_]{8}")
DECISIONS = "decisions.jsonl"  # the record of `align decide`, which nothing here replaces
_LIBRARIES = ("concord", "torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets", "lm-eval")


class Run:
    """An open run folder. Only the main process of a distributed run writes to it."""

    def __init__(
        self, folder: Path, manifest: dict[str, Any], resumed: bool, writes: bool, mirror: str | None = None
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.resumed = resumed
        self.writes = writes
        self.started = time.monotonic()
        self.mirror = Mirror(mirror) if mirror and writes else None

    def log(self, metrics: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        if self.writes:
            with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as stream:
                stream.write(json.dumps(metrics, sort_keys=True) + "\n")

    def forget_after(self, step: int, name: str = "metrics.jsonl") -> None:
        """Drop what a file of lines by step says of steps after `step`: a run resumed there will log them again."""
        path = self.folder / name
        if self.writes and path.is_file():
            # the line being written when the run was killed may be cut off, even within a character
            whole = path.read_bytes().split(b"\n")[:-1]
            kept = [line.decode() + "\n" for line in whole if json.loads(line)["step"] <= step]
            write_text(path, "".join(kept))

    def finish(self, **facts: Any) -> None:
        """Mark the run finished: from here on its folder is a model, or a report, that others may build on."""
        self.manifest.update(facts)
        self.manifest["status"] = "finished"
        self.manifest["finished_at"] = now()
        self.manifest["seconds"] = round(time.monotonic() - self.started, 3)
        self.save()
        if self.mirror:
            self.mirror.finish(self.folder)

    def copy_checkpoint(self, checkpoint: Path) -> None:
        """Send a whole checkpoint to the run's mirror, if it has one."""
        if self.mirror:
            self.mirror.push(self.folder, checkpoint)

    def stop(self) -> None:
        """Mark the run stopped: it was asked to, and --resume goes on with it."""
        self.manifest["status"] = "stopped"
        self.manifest["stopped_at"] = now()
        self.save()

    def discard(self) -> None:
        """Leave nothing behind: nothing has come of the run."""
        if self.writes:
            shutil.rmtree(self.folder, ignore_errors=True)

    def save(self) -> None:
        """Write the manifest, whole or not at all."""
        if self.writes:
            write_text(self.folder / "manifest.json", json.dumps(self.manifest, indent=2, sort_keys=True) + "\n")


def check_output_folder(output_dir: str | Path, verb: str, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that is in use. Raises BadInput; called before anything slow, and changes nothing.

    A folder that holds anything else than a run is refused even with --overwrite, so that a slip of the hand in
    `output_dir` never deletes somebody's files.
    """
    folder = Path(output_dir)
    name = "--out" if verb == "export" else "output_dir"
    above = next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.exists(place))
    if above != folder.absolute() and not above.is_dir():
        raise BadInput(f"{name} {folder}: {above} is a file, and nothing can be made in it; give another folder")
    if above.is_dir() and not os.access(above, os.W_OK | os.X_OK):
        raise BadInput(f"{name} {folder}: {above} cannot be written to; give another folder")
    if resume and overwrite:
        raise BadInput("--resume and --overwrite contradict each other; give one of them")
    if os.path.exists(folder) and not folder.is_dir():
        raise BadInput(f"{name} {folder}: is a file; give a folder")
    if not os.path.exists(folder) or not any(folder.iterdir()):
        if resume:
            raise BadInput(f"{name} {folder}: no run to resume there; leave --resume out to start one")
        return
    if not (folder / "manifest.json").is_file():
        raise BadInput(f"{name} {folder}: not empty, and what it holds is not a run; give another folder")
    manifest = read_json(folder / "manifest.json")
    if "verb" not in manifest:
        raise BadInput(f"{name} {folder}: not empty, and what it holds is not a run; give another folder")
    if resume:
        if manifest["verb"] != verb:
            raise BadInput(f"{name} {folder}: holds a run of `align {manifest['verb']}`, not of `align {verb}`")
        if manifest.get("status") == "finished":
            raise BadInput(f"{name} {folder}: that run is finished; there is nothing to resume")
    elif not overwrite:
        go_on = "" if verb == "export" else "--resume to go on with it, "
        raise BadInput(
            f"{name} {folder}: already holds a run ({manifest.get('status')});"
            f" give {go_on}--overwrite to replace it, or another {name}"
        )
    elif (folder / DECISIONS).exists():
        raise BadInput(f"{name} {folder}: somebody has decided on this run ({DECISIONS}); give another folder")


def start_run(
    verb: str,
    recipe: dict[str, Any],
    *,
    inputs: dict[str, dict[str, Any]],
    parents: Sequence[str | Path],
    seed: int,
    resume: bool,
    processes: int = 1,
    writes: bool = True,
    mirror: str | None = None,
) -> Run:
    """Open the run folder `recipe["output_dir"]`; all inputs have been checked by now.

    `inputs` maps a role ("dataset", "model") to facts with hashes; `parents` are run folders that this run builds on.
    A resumed run must have the same recipe (raises BadInput); what an overwritten run left is deleted. `writes` is
    true in one process of a distributed run; `mirror` is the URL of a store that gets a copy.
    """
    folder = Path(recipe["output_dir"])
    for facts in inputs.values():
        for name in (facts["name"], facts.get("base")):
            if name and Path(name).exists() and Path(name).resolve().is_relative_to(folder.resolve()):
                raise BadInput(f"output_dir {folder}: the run would replace its own input {name}; give another folder")
    recipe, inputs = named(recipe), named(inputs)
    resumed_at: list[str] = []
    old: dict[str, Any] = {}
    if resume:
        old = read_json(folder / "manifest.json")
        changed = [key for key in {**old["recipe"], **recipe} if old["recipe"].get(key) != recipe.get(key)]
        if changed:
            raise BadInput(
                f"output_dir {folder}: the run to resume has another `{sorted(changed)[0]}` in its recipe;"
                " resume it with the recipe it was started with"
            )
        if old["inputs"] != inputs:
            raise BadInput(
                f"output_dir {folder}: the data or the model of the run to resume have changed since; --overwrite it"
            )
        resumed_at = [*old.get("resumed_at", []), now()]
        for path in list(folder.iterdir()) if writes else []:
            if _UNFINISHED.fullmatch(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name in clear_torn(folder) if writes else []:
            say(f"{name} was not written to its end, and is deleted")
    elif writes and os.path.exists(folder):
        shutil.rmtree(folder)
    manifest = described(verb, recipe, inputs, parents, seed, processes)
    manifest |= {"started_at": old.get("started_at", manifest["started_at"]), "resumed_at": resumed_at}
    run = Run(folder, manifest, resumed=resume, writes=writes, mirror=mirror)
    if writes:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:  # of a name that is too long, say, or of a file system that takes no folders
            if error.errno == errno.ENOSPC:
                raise
            raise BadInput(f"output_dir {folder}: cannot be made ({error.strerror}); give another folder") from None
        run.save()
        if run.mirror and not resume:
            run.mirror.begin(folder)
        write_text(folder / "recipe.yaml", yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    opened(run)
    return run


def described(
    verb: str,
    recipe: dict[str, Any],
    inputs: dict[str, dict[str, Any]],
    parents: Sequence[str | Path],
    seed: int,
    processes: int = 1,
) -> dict[str, Any]:
    """The manifest of a run that begins now; see start_run."""
    return {
        "format": 1,
        "verb": verb,
        "status": "running",
        "recipe": recipe,
        "inputs": inputs,
        "parents": [_parent(Path(parent)) for parent in parents],
        "seed": seed,
        "versions": versions(),
        "git_commit": _git_commit(),
        "processes": processes,
        "started_at": now(),
        "resumed_at": [],
    }


def run_of(name: str | Path) -> Path | None:
    """The folder of the run that made a model: the model's own, or for a checkpoint the one around it."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return None
    return next((place for place in (folder, folder.resolve().parent) if is_run(place)), None)


def parents_of(names: Iterable[str]) -> list[str]:
    """The runs among the names of models and data, each once."""
    return list(dict.fromkeys(str(run) for name in names if (run := run_of(name)) is not None))


def is_run(folder: str | Path) -> bool:
    """Whether a folder was made by a run."""
    path = Path(folder) / "manifest.json"
    return path.is_file() and "verb" in read_json(path)


def _parent(folder: Path) -> dict[str, Any]:
    manifest = read_json(folder / "manifest.json")
    return {"folder": named(str(folder)), "verb": manifest["verb"], "manifest_sha256": sha256_json(manifest)}


def hash_weights(folder: str | Path) -> dict[str, str]:
    """Hex SHA-256 of each file of weights in a model or adapter folder."""
    return {path.name: digest(path) for path in sorted(Path(folder).glob("*.safetensors"))}


def digest(path: Path) -> str:
    """Hex SHA-256 of a file, read once as long as it does not change: several parts of a run ask for the same one."""
    facts = path.stat()
    return _digest(path, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


@lru_cache(maxsize=1024)
def _digest(path: Path, *_: int) -> str:
    return sha256_file(path)


def hash_results(folder: str | Path) -> dict[str, str]:
    """Hex SHA-256 of each file that an evaluation leaves to be decided from."""
    names = ("metrics.json", "samples.jsonl", "report.html")
    return {name: sha256_file(Path(folder) / name) for name in names if (Path(folder) / name).is_file()}


def versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _git_commit() -> str | None:
    """The commit of the checkout that this code runs from, with "+changes" when it differs; None when installed."""
    try:
        here = {"cwd": Path(__file__).parent, "capture_output": True, "text": True, "timeout": 10, "check": True}
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **here).stdout.strip()  # type: ignore[call-overload]
        changes = subprocess.run(["git", "status", "--porcelain", "-uno"], **here).stdout  # type: ignore[call-overload]
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changes.strip() else "")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
