"""Checkpoints of a loop of our own: tensors as safetensors, never pickles, each folder whole or not there."""

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from preferences.files import whole_folder

if TYPE_CHECKING:
    import torch


def save_checkpoint(
    run_folder: Path, step: int, parameters: "dict[str, torch.Tensor]", optimizer: "torch.optim.Optimizer"
) -> None:
    """Write `checkpoint-STEP` with the trained parameters and the optimiser's state, and drop older ones."""
    import torch
    from safetensors.torch import save_file

    state = {
        f"{number}.{name}": value if isinstance(value, torch.Tensor) else torch.tensor(value)
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    with whole_folder(run_folder / f"checkpoint-{step}") as folder:
        save_file({name: p.detach().contiguous() for name, p in parameters.items()}, folder / "parameters.safetensors")
        save_file({name: value.contiguous() for name, value in state.items()}, folder / "optimizer.safetensors")
    for old_step, path in _checkpoints(run_folder):
        if old_step < step:
            shutil.rmtree(path)


def load_checkpoint(run_folder: Path, parameters: "dict[str, torch.Tensor]", optimizer: "torch.optim.Optimizer") -> int:
    """Put the last whole checkpoint into `parameters` and `optimizer`, and return its step; 0 when there is none."""
    from safetensors.torch import load_file

    found = _checkpoints(run_folder)
    if not found:
        return 0
    step, folder = max(found)
    for name, value in load_file(folder / "parameters.safetensors").items():
        parameters[name].data.copy_(value)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(folder / "optimizer.safetensors").items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return step


def _checkpoints(run_folder: Path) -> list[tuple[int, Path]]:
    matches = ((re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in run_folder.glob("checkpoint-*"))
    return [(int(match.group(1)), path) for match, path in matches if match]
