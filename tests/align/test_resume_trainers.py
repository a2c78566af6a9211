"""Runs of TRL's trainers that die anywhere end where the unbroken one ends, to the last bit; and what they keep."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers.trainer_utils import set_seed

from align.run.checkpoint import MARKER, marker_of
from align.train.keeping import Keeper
from tests.align.conftest import done, write_recipe

# Nothing comes out even: 40 pairs are 14 batches, 7 steps an epoch; checkpoints fall into epochs and on their ends, and
# a look at held-out rows comes between. Dropout and the order of rows draw random numbers all the while.
STEPS = 18
KEYS: dict[str, Any] = {"max_steps": STEPS, "save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-3}
KEYS |= {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "seed": 3, "warmup_steps": 3}
LORA: dict[str, Any] = {"use_peft": True, "lora_r": 4, "lora_dropout": 0.2}
EVAL: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 3, "dataset_test_split": "test"}


class Killed(BaseException):
    """Stands for a SIGKILL: nothing catches it."""


def trained(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a model or adapter folder."""
    (path,) = [path for path in folder.glob("*model.safetensors")]
    return load_file(path)


def equal(one: Any, other: Any) -> bool:
    """Whether two states are the same to the last bit, whatever they are made of."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    if hasattr(one, "tolist"):
        return bool((one == other).all())
    return bool(one == other)


def state_of(checkpoint: Path) -> dict[str, Any]:
    """All that a checkpoint knows but the log: weights, optimizer, schedule, generators of random numbers."""
    parts = {path.name: torch.load(path, weights_only=False) for path in checkpoint.glob("*.pt*")}
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth"} <= set(parts)
    return {**parts, "weights": trained(checkpoint)}


def whole_ones(folder: Path) -> list[int]:
    """The steps of a run's whole checkpoints; there is nothing else that looks like one."""
    found = list(folder.glob("checkpoint-*"))
    assert all(marker_of(path) for path in found)
    return sorted(int(path.name.split("-")[1]) for path in found)


def assert_same_to_the_last_bit(unbroken: Path, broken: Path) -> None:
    assert equal(trained(unbroken), trained(broken))
    assert whole_ones(unbroken) == whole_ones(broken)
    last = f"checkpoint-{whole_ones(unbroken)[-1]}"
    one, other = state_of(unbroken / last), state_of(broken / last)
    assert one.keys() == other.keys()
    for name in one:
        assert equal(one[name], other[name]), name
    assert not [path for path in broken.rglob("training_args.bin")], "a pickle"


@pytest.fixture()
def dies(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run `align VERB RECIPE …`, and die at a step: before its checkpoint has its marker, or at its end."""

    def run(verb: str, recipe: Path, *words: Any, at: int, torn: bool) -> None:
        where = "on_save" if torn else "on_step_end"
        before = getattr(Keeper, where)

        def die(self: Keeper, args: Any, state: Any, *more: Any, **named: Any) -> None:
            if state.global_step == at:
                raise Killed
            before(self, args, state, *more, **named)

        with monkeypatch.context() as patch:
            patch.setattr(Keeper, where, die)
            with pytest.raises(Killed):
                done(verb, recipe, *words)
        set_seed(999)

    return run


TRAINERS = {
    "dpo": ("dpo", {**LORA, **EVAL}),
    "dpo whole": ("dpo", {"lr_scheduler_type": "cosine"}),
    "dpo precomputed": ("dpo", {**LORA, "precompute_ref_log_probs": True}),
    "dpo epochs": ("dpo", {**LORA, **EVAL, "eval_strategy": "epoch", "save_strategy": "epoch"}),
    "dpo mixed": ("dpo", {**LORA, **EVAL, "eval_strategy": "epoch", "save_steps": 1}),
    "reward": ("reward", {**LORA, **EVAL}),
    "reward rankings": ("reward", {**LORA, **EVAL, "loss_type": "plackett_luce"}),
    "reward whole": ("reward", {}),
    "sft": ("sft", {**LORA, **EVAL}),
    "sft by length": ("sft", {**LORA, "train_sampling_strategy": "group_by_length"}),
    "kto": ("kto", {**LORA, **EVAL, "per_device_train_batch_size": 4}),
}


@pytest.mark.parametrize("name", TRAINERS)
def test_it_ends_where_the_unbroken_run_ends(
    name: str, tiny: Path, preferences: Path, tmp_path: Path, dies: Callable[..., None]
) -> None:
    verb, keys = TRAINERS[name]
    keys = {**KEYS, "model_name_or_path": str(tiny), "dataset_name": str(preferences), **keys}
    recipe = write_recipe(tmp_path / "r.yaml", **keys)
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    done(verb, recipe, "--output_dir", unbroken)
    saves = whole_ones(unbroken)
    words: tuple[Any, ...] = ("--output_dir", broken)
    dies(verb, recipe, *words, at=saves[0], torn=True)
    dies(verb, recipe, *words, "--resume", at=saves[1] + 1, torn=False)
    dies(verb, recipe, *words, "--resume", at=saves[-2], torn=True)
    dies(verb, recipe, *words, "--resume", at=STEPS, torn=True)
    said = done(verb, recipe, *words, "--resume")
    assert f"resuming from {broken / f'checkpoint-{saves[-2]}'}" in said.err
    assert f"checkpoint-{STEPS} was not written to its end" in said.err or STEPS not in saves
    assert_same_to_the_last_bit(unbroken, broken)
