"""Checkpoints: which of them are whole, which go; and those of a loop of our own, as safetensors, never pickles.

The last file written into a checkpoint is its marker, complete.json. A folder without one, or with one that says other
sizes, was being written when its run died: it is no checkpoint.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.run.remote import MARKER
from preferences.errors import BadInput
from preferences.files import read_json, whole_folder, write_text

if TYPE_CHECKING:
    import torch


FORMAT = 1
STATE_FILES = ("parameters.safetensors", "optimizer.safetensors")  # what only --resume reads


def mark_whole(folder: Path, step: int, processes: int, **facts: Any) -> None:
    """Write the marker into a checkpoint folder to which all else has been written, by all processes: the sizes of its
    files, and `facts`. What it vouches for is on the disk before it is.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MARKER)
    for path in [*files, *(path for path in folder.rglob("*") if path.is_dir()), folder]:
        _to_disk(path)
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in files}
    marker = {"format": FORMAT, "step": step, "processes": processes, **facts, "files": sizes}
    write_text(folder / MARKER, json.dumps(marker, indent=1, sort_keys=True) + "\n")
    for path in (folder, folder.parent):  # the names of files are in their folders
        _to_disk(path)


def marker_of(folder: Path) -> dict[str, Any] | None:
    """What the marker of a whole checkpoint says; None of any other folder."""
    try:
        marker = read_json(folder / MARKER)
        sizes = marker["files"].items()
        whole = isinstance(marker["step"], int) and all((folder / name).stat().st_size == size for name, size in sizes)
    except (BadInput, OSError, KeyError, TypeError, AttributeError, ValueError):
        return None
    return marker if whole else None


def checkpoints(run_folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of each whole `checkpoint-STEP` of a run, in no order."""
    return [(step, folder) for step, folder in _named(run_folder) if _is_whole(step, folder)]


def clear_torn(run_folder: Path) -> list[str]:
    """Delete the folders named like checkpoints that are none; their names."""
    torn = [folder for step, folder in _named(run_folder) if not _is_whole(step, folder)]
    for folder in torn:
        shutil.rmtree(folder)
    return sorted(folder.name for folder in torn)


def prune(run_folder: Path, limit: int | None, keep: Collection[int] = ()) -> None:
    """Of all whole checkpoints the last `limit` stay (None: every one), and the steps to `keep`. The marker of one that
    goes goes first.
    """
    if limit is None:
        return
    for step, folder in sorted(checkpoints(run_folder))[:-limit]:
        if step not in keep:
            (folder / MARKER).unlink()
            shutil.rmtree(folder)


def _named(run_folder: Path) -> list[tuple[int, Path]]:
    matches = ((re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in run_folder.glob("checkpoint-*"))
    return [(int(match.group(1)), path) for match, path in matches if match and path.is_dir()]


def _is_whole(step: int, folder: Path) -> bool:
    marker = marker_of(folder)
    return marker is not None and marker["step"] == step


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_checkpoint(
    run_folder: Path,
    step: int,
    parameters: "dict[str, torch.Tensor]",
    optimizer: "torch.optim.Optimizer",
    state: dict[str, Any],
    keep: Collection[int] = (),
    limit: int | None = 1,
    write_model: Callable[[Path], None] | None = None,
    processes: int = 1,
) -> None:
    """Write `checkpoint-STEP` with the trained parameters, the optimiser's state and the loop's own `state`. Of all
    checkpoints the last `limit` stay (None: every one), and the steps to `keep`.

    `write_model` puts the model that is being trained into the folder, so that it can be loaded as one.
    """
    import torch
    from safetensors.torch import save_file

    tensors = {
        f"{number}.{name}": value if isinstance(value, torch.Tensor) else torch.tensor(value)
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    with whole_folder(run_folder / f"checkpoint-{step}") as folder:
        save_file({name: p.detach().contiguous() for name, p in parameters.items()}, folder / "parameters.safetensors")
        save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "optimizer.safetensors")
        (folder / "state.json").write_text(json.dumps({"format": 1, **state}, indent=1) + "\n", encoding="utf-8")
        if write_model is not None:
            write_model(folder)
        mark_whole(folder, step, processes)
    _to_disk(run_folder)
    prune(run_folder, limit, keep)


def load_checkpoint(
    run_folder: Path, parameters: "dict[str, torch.Tensor]", optimizer: "torch.optim.Optimizer"
) -> tuple[int, dict[str, Any]]:
    """Put the last whole checkpoint into `parameters` and `optimizer`; its step and the loop's state, or (0, {})."""
    from safetensors.torch import load_file

    found = checkpoints(run_folder)
    if not found:
        return 0, {}
    step, folder = max(found)
    load_parameters(run_folder, step, parameters)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(folder / "optimizer.safetensors").items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return step, read_json(folder / "state.json")


def load_parameters(run_folder: Path, step: int, parameters: "dict[str, torch.Tensor]") -> None:
    """Put the parameters of `checkpoint-STEP` into `parameters`. Raises BadInput when they are not the same ones."""
    from safetensors.torch import load_file

    folder = run_folder / f"checkpoint-{step}"
    found = load_file(folder / "parameters.safetensors")
    odd = sorted(found.keys() ^ parameters.keys())
    odd += sorted(name for name in found.keys() & parameters.keys() if found[name].shape != parameters[name].shape)
    if odd:
        raise BadInput(f"{folder}: a checkpoint of another recipe ({odd[0]} does not fit); --overwrite the run")
    for name, value in found.items():
        parameters[name].data.copy_(value)
