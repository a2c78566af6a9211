"""Runs of TRL's trainers that die anywhere end where the unbroken one ends, to the last bit; and what they keep."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers.trainer_utils import set_seed

from align.run.checkpoint import MARKER, checkpoints, marker_of
from align.train.even import _Filled
from align.train.keeping import Keeper, _seed_order, looks
from tests.align.conftest import done, refused, write_recipe

# Nothing comes out even: 18 pairs in batches of 4 are 5 batches, 3 steps an epoch, the last of one batch. Checkpoints
# fall into epochs and on their ends, looks at held-out rows come between, and dropout and the order of rows draw random
# numbers all the while.
STEPS = 16
KEYS: dict[str, Any] = {"max_steps": STEPS, "save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-3}
KEYS |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "seed": 3, "warmup_steps": 3}
LORA: dict[str, Any] = {"use_peft": True, "lora_r": 4, "lora_dropout": 0.2}
EVAL: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 3, "dataset_test_split": "test"}


SAMPLING: dict[str, Any] = {"max_completion_length": 8, "num_generations": 4, "per_device_eval_batch_size": 4}
SAMPLING |= {"reward_funcs": "rewards.py:says_o"}
REWARD = "def says_o(completions, **_):\n    return [float(c[0]['content'].count('o')) for c in completions]\n"


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


TRAINERS: dict[str, tuple[str, dict[str, Any]]] = {
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
    "kto": ("kto", {**LORA, **EVAL}),
    "rloo": ("rloo", {**LORA, **SAMPLING}),
    "grpo": ("grpo", {**LORA, **EVAL, **SAMPLING, "num_iterations": 2, "beta": 0.1}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINERS)
def test_it_ends_where_the_unbroken_run_ends(
    name: str,
    tiny: Path,
    preferences: Path,
    tmp_path: Path,
    dies: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It dies in its first checkpoint, within an epoch, in a later checkpoint, and in its last one."""
    monkeypatch.chdir(tmp_path)
    Path("rewards.py").write_text(REWARD)
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
    dies(verb, recipe, *words, "--resume", at=saves[-1], torn=True)
    said = done(verb, recipe, *words, "--resume")
    assert f"resuming from {broken / f'checkpoint-{saves[-2]}'}" in said.err
    assert f"checkpoint-{saves[-1]} was not written to its end, and is deleted" in said.err
    assert_same_to_the_last_bit(unbroken, broken)
    moved = [trained(unbroken / f"checkpoint-{step}") for step in (saves[0], saves[-1])]
    assert not equal(*moved), "nothing was learnt"


def test_the_order_of_rows_is_a_function_of_the_epoch_where_blanks_fill_it_up_too() -> None:
    """As several processes read them, by length: the sampler has a generator that goes on from epoch to epoch."""
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler, DataLoader
    from transformers.trainer_pt_utils import LengthGroupedSampler

    rows = LengthGroupedSampler(4, lengths=list(range(11)))
    batches = BatchSampler(_Filled(rows, 11, 1), batch_size=2, drop_last=False)
    loader: Any = DataLoader(list(range(12)), batch_sampler=BatchSamplerShard(batches, 2, 0))
    orders = []
    for epoch in (1, 2, 1):
        _seed_order(loader, epoch)
        orders.append(list(batches))
    assert orders[0] == orders[2] != orders[1]
    assert orders[0][-1][-1] == 11, "the blank is not the last one"


@pytest.mark.slow
def test_it_dies_after_its_last_checkpoint(
    tiny: Path, preferences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an epoch, with nothing left to learn: transformers would take one step more."""
    keys = {**KEYS, **LORA, "model_name_or_path": str(tiny), "dataset_name": str(preferences)}
    recipe = write_recipe(tmp_path / "r.yaml", **keys)
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    done("reward", recipe, "--output_dir", unbroken)

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    from trl import RewardTrainer

    save = RewardTrainer.save_model
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RewardTrainer, "save_model", lambda *a, **k: save(*a, **k) if k else die())  # of checkpoints
        done("reward", recipe, "--output_dir", broken)
    assert whole_ones(broken)[-1] == STEPS
    said = done("reward", recipe, "--output_dir", broken, "--resume")
    assert f"step {STEPS + 1}" not in said.err
    assert_same_to_the_last_bit(unbroken, broken)
    manifests = [json.loads((run / "manifest.json").read_text()) for run in (unbroken, broken)]
    assert [m["steps"] for m in manifests] == [STEPS, STEPS]
    assert manifests[0]["weights_sha256"] == manifests[1]["weights_sha256"]
    assert manifests[0]["scores"] == manifests[1]["scores"]


@pytest.mark.slow
def test_looks_at_held_out_rows_change_nothing(tiny: Path, preferences: Path, tmp_path: Path) -> None:
    """They draw no number that training would have drawn."""
    keys = {**KEYS, **LORA, "model_name_or_path": str(tiny), "dataset_name": str(preferences), "save_strategy": "no"}
    for name, more in (("blind", {}), ("looking", EVAL)):
        recipe = write_recipe(tmp_path / f"{name}.yaml", **{**keys, **more, "max_steps": 7})
        done("dpo", recipe, "--output_dir", tmp_path / name)
    assert equal(trained(tmp_path / "blind"), trained(tmp_path / "looking"))


# --- the best one -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["lora", "whole"])
def test_the_run_ends_with_its_best_checkpoint_and_the_head_of_it(
    whole: bool, tiny: Path, preferences: Path, tmp_path: Path, dies: Callable[..., None]
) -> None:
    """A rate so high that the run gets worse after its best look: it stops, and goes back, score head and all; and so
    does the run that was killed on its way.
    """
    keys = {**KEYS, **({} if whole else LORA), **EVAL, "model_name_or_path": str(tiny), "save_total_limit": 1}
    keys |= {
        "dataset_name": str(preferences),
        "learning_rate": 0.03 if whole else 0.1,
        "eval_steps": 1,
        "save_steps": 4,
    }
    keys |= {"metric_for_best_model": "loss", "load_best_model_at_end": True, "patience": 3, "warmup_steps": 0}
    recipe = write_recipe(tmp_path / "r.yaml", **keys)
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    said = done("reward", recipe, "--output_dir", unbroken)
    logged = [json.loads(line) for line in (unbroken / "metrics.jsonl").read_text().splitlines()]
    looked = {row["step"]: row["eval_loss"] for row in logged if "eval_loss" in row}
    best = min(looked, key=lambda step: looked[step])
    manifest = json.loads((unbroken / "manifest.json").read_text())
    assert manifest["best"] == {"step": best, "eval_loss": looked[best]}
    assert max(looked) == best + 3 < STEPS, "patience is not tried"
    assert "stopping: no new best in 3 looks" in said.err
    assert set(whole_ones(unbroken)) >= {best} and len(whole_ones(unbroken)) <= 2
    last = trained(unbroken)
    assert equal(last, trained(unbroken / f"checkpoint-{best}"))
    (head,) = [name for name in last if "score" in name]
    assert last[head].abs().sum() > 0

    dies("reward", recipe, "--output_dir", broken, at=best + 2, torn=False)
    done("reward", recipe, "--output_dir", broken, "--resume")
    assert_same_to_the_last_bit(unbroken, broken)
    assert json.loads((broken / "manifest.json").read_text())["best"] == manifest["best"]


@pytest.mark.slow
def test_a_metric_of_trls_can_say_which_is_the_best(tiny: Path, preferences: Path, tmp_path: Path) -> None:
    keys = {**KEYS, **LORA, **EVAL, "model_name_or_path": str(tiny), "dataset_name": str(preferences)}
    keys |= {"max_steps": 4, "eval_steps": 2, "save_total_limit": 1, "output_dir": str(tmp_path / "run")}
    recipe = write_recipe(tmp_path / "r.yaml", **keys)
    done("dpo", recipe, "--metric_for_best_model", "rewards/margins", "--greater_is_better", "true")
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    best = max((row for row in logged if "eval_loss" in row), key=lambda row: row["eval_rewards/margins"])
    margin = best["eval_rewards/margins"]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["best"] == {"step": best["step"], "eval_rewards/margins": margin}
    said = refused("dpo", recipe, "--overwrite", "--metric_for_best_model", "bleu")
    assert "key `metric_for_best_model`: eval_bleu is not measured on held-out rows; take one of eval_" in said
    assert "key `patience`: say of what" in refused("dpo", recipe, "--overwrite", "--patience", "2")
    words = ("--overwrite", "--patience", "2", "--eval_strategy", "no")
    assert "key `patience` needs looks at held-out rows" in refused("dpo", recipe, *words)


def test_the_best_look_and_how_many_came_since() -> None:
    def history(*values: float) -> list[dict[str, Any]]:
        return [{"step": 0, "x": -9.0}, *({"step": n, "x": value} for n, value in enumerate(values, start=1))]

    assert looks([], "x", False) == (None, 0)
    assert looks(history(3, 2, 2, 5), "x", False) == (2, 2)
    assert looks(history(3, 2, 2, 5), "x", True) == (4, 0)
    assert looks([*history(3, 2), {"step": 3, "loss": 0.0}], "x", False) == (2, 0)


@pytest.mark.slow
def test_checkpoints_of_weights_alone_are_not_resumed_from(
    tiny: Path, preferences: Path, tmp_path: Path, dies: Callable[..., None]
) -> None:
    keys = {**KEYS, **LORA, "model_name_or_path": str(tiny), "dataset_name": str(preferences), "save_only_model": True}
    recipe = write_recipe(tmp_path / "r.yaml", **{**keys, "max_steps": 6})
    done("sft", recipe, "--output_dir", tmp_path / "unbroken")
    dies("sft", recipe, "--output_dir", tmp_path / "broken", at=5, torn=False)
    assert whole_ones(tmp_path / "broken") == [2, 4]
    said = done("sft", recipe, "--output_dir", tmp_path / "broken", "--resume")
    assert "no whole checkpoint yet; starting from the beginning" in said.err
    assert equal(trained(tmp_path / "unbroken"), trained(tmp_path / "broken"))


def test_what_would_not_end_where_it_should_is_not_resumed(
    tiny: Path, preferences: Path, tmp_path: Path, dies: Callable[..., None]
) -> None:
    """With another number of processes, or a reference that moves."""
    keys = {**KEYS, "model_name_or_path": str(tiny), "dataset_name": str(preferences), "max_steps": 3}
    recipe = write_recipe(tmp_path / "r.yaml", **keys, output_dir=str(tmp_path / "run"), sync_ref_model=True)
    dies("dpo", recipe, at=3, torn=False)
    assert "key `sync_ref_model`: a reference that moves is not in checkpoints" in refused("dpo", recipe, "--resume")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({**manifest, "processes": 2}))
    said = refused("dpo", recipe, "--resume")
    assert "the run to resume has 2 processes, and with 1 it would not end where it would have ended" in said


# --- real processes ------------------------------------------------------------------------------------------------


@contextmanager
def align_process(words: tuple[Any, ...], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """`align WORDS` as a process of its own, whose words go to a file."""
    command = [str(Path(sys.executable).parent / "align"), *map(str, words)]
    with open(log, "wb") as err, subprocess.Popen(command, stderr=err, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def waited_for(process: subprocess.Popen[bytes], log: Path, condition: Callable[[], bool]) -> None:
    """Come back when the condition holds; the process must still run."""
    while not condition():
        assert process.poll() is None, log.read_text()
        time.sleep(0.001)


def kill_while_it_writes(process: subprocess.Popen[bytes], folder: Path, log: Path) -> None:
    """SIGKILL within the writing of a checkpoint, after one that is whole: the process is halted to make sure."""

    def whole_and_torn() -> bool:
        found = {int(path.name.split("-")[1]): (path / MARKER).is_file() for path in folder.glob("checkpoint-*")}
        return len(found) > 1 and not found[max(found)] and any(found.values())

    while True:
        waited_for(process, log, whole_and_torn)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        if whole_and_torn():
            break
        process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("verb", "keys"),
    [
        ("dpo", {**LORA, **EVAL}),
        pytest.param("dpo", {}, marks=pytest.mark.slow),
        pytest.param("sft", LORA, marks=pytest.mark.slow),
        pytest.param("reward", {**LORA, **EVAL}, marks=pytest.mark.slow),
        pytest.param("reward", {**LORA, "loss_type": "plackett_luce"}, marks=pytest.mark.slow),
        pytest.param("kto", LORA, marks=pytest.mark.slow),
    ],
)
def test_killed_stopped_and_resumed(
    verb: str, keys: dict[str, Any], tiny: Path, preferences: Path, tmp_path: Path
) -> None:
    """SIGKILL within the writing of a checkpoint; then SIGTERM, which leaves one, and the line to go on with."""
    keys = {**KEYS, **keys, "model_name_or_path": str(tiny), "dataset_name": str(preferences)}
    keys |= {"max_steps": 60, "save_steps": 1, "save_total_limit": 3}
    recipe = write_recipe(tmp_path / "a recipe.yaml", **keys)
    unbroken, broken, log = tmp_path / "unbroken", tmp_path / "broken", tmp_path / "log"
    done(verb, recipe, "--output_dir", unbroken)
    words: tuple[Any, ...] = (verb, recipe, "--output_dir", broken)
    with align_process(words, log) as process:
        kill_while_it_writes(process, broken, log)
    manifest = json.loads((broken / "manifest.json").read_text())
    assert manifest["status"] == "running"

    with align_process((*words, "--resume"), log) as process:
        first = max(step for step, _ in checkpoints(broken))
        waited_for(process, log, lambda: f"step {first + 3}/" in log.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0, log.read_text()
    said = log.read_text().splitlines()
    assert f"resuming from {broken / f'checkpoint-{first}'}" in said
    assert said[-1] == f"stopped by SIGTERM; go on with: align {verb} '{recipe}' --output_dir {broken} --resume"
    manifest = json.loads((broken / "manifest.json").read_text())
    assert manifest["status"] == "stopped"
    (stopped_at,) = [max(step for step, _ in checkpoints(broken))]
    assert not (broken / "adapter_model.safetensors").exists() and first + 3 <= stopped_at < 60
    assert whole_ones(broken)[-1] == stopped_at

    again = done(*shlex.split(said[-1].partition("go on with: align ")[2]))
    assert f"resuming from {broken / f'checkpoint-{stopped_at}'}" in again.err
    assert_same_to_the_last_bit(unbroken, broken)
    steps = [
        row["step"] for row in map(json.loads, (broken / "metrics.jsonl").read_text().splitlines()) if "loss" in row
    ]
    assert steps == list(range(1, 61))
    assert len(json.loads((broken / "manifest.json").read_text())["resumed_at"]) == 2
