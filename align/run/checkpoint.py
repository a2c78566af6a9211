"""Checkpoints of a loop of our own: tensors as safetensors, never pickles, each folder whole or not there."""

import json
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preferences.errors import BadInput
from preferences.files import read_json, whole_folder

if TYPE_CHECKING:
    import torch


STATE_FILES = ("parameters.safetensors", "optimizer.safetensors")  # what only --resume reads


def save_checkpoint(
    run_folder: Path,
    step: int,
    parameters: "dict[str, torch.Tensor]",
    optimizer: "torch.optim.Optimizer",
    state: dict[str, Any],
    keep: Collection[int] = (),
    limit: int | None = 1,
    write_model: Callable[[Path], None] | None = None,
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
    if limit is not None:
        older = sorted(found for found in checkpoints(run_folder) if found[0] < step)
        for old_step, path in older[: max(0, len(older) + 1 - limit)]:
            if old_step not in keep:
                shutil.rmtree(path)


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


def checkpoints(run_folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of each `checkpoint-STEP` of a run, in no order."""
    matches = ((re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in run_folder.glob("checkpoint-*"))
    return [(int(match.group(1)), path) for match, path in matches if match]
