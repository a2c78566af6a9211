"""A run that is killed and resumed ends where the unbroken one ends."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from align.run.checkpoint import load_checkpoint, load_parameters, mark_whole, save_checkpoint
from preferences.errors import BadInput
from tests.align.conftest import TRAIN, done, refused, write_recipe

STEPS = 90


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=1e-6, rtol=1e-5)


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def recipe_of(folder: Path, tiny: Path, data: Path, **more: Any) -> Path:
    keys = {**TRAIN, "max_steps": STEPS, "save_strategy": "steps", "save_steps": 20, "per_device_train_batch_size": 4}
    keys |= {"learning_rate": 1e-3, "lora_dropout": 0.1, "seed": 3, **more}
    return write_recipe(folder, **keys, model_name_or_path=str(tiny), dataset_name=str(data))


def test_killed_before_the_first_checkpoint(tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "r.yaml", tiny, pairs_file)
    words = ["--max_steps", "4"]
    done("dpo", recipe, "--output_dir", tmp_path / "unbroken", *words)
    broken = tmp_path / "broken"
    done("dpo", recipe, "--output_dir", broken, *words)
    manifest = json.loads((broken / "manifest.json").read_text())
    (broken / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    for path in broken.iterdir():  # as it is after two steps, with none of the results
        if path.name not in ("manifest.json", "recipe.yaml", "metrics.jsonl"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    said = done("dpo", recipe, "--output_dir", broken, *words, "--resume")
    assert "no whole checkpoint yet" in said.err
    assert_same(weights(tmp_path / "unbroken"), weights(broken))
    assert [row["step"] for row in metrics(broken) if "loss" in row] == [1, 2, 3, 4]


def test_evaluation_goes_on_with_the_responses_it_has(
    tiny: Path, reward_run: Path, pairs_file: Path, tmp_path: Path
) -> None:
    keys: dict[str, Any] = {"models": {"base": str(tiny), "copy": str(tiny)}, "dataset_name": str(pairs_file)}
    keys |= {"judges": {"reward": str(reward_run)}, "output_dir": str(tmp_path / "run"), "max_new_tokens": 4}
    recipe = write_recipe(tmp_path / "e.yaml", **keys, cache_dir=None)
    done("evaluate", recipe)
    metrics_before = (tmp_path / "run" / "metrics.json").read_text()
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    (tmp_path / "run" / "metrics.json").unlink()
    (tmp_path / "run" / "responses-copy.jsonl").unlink()
    said = done("evaluate", recipe, "--resume")
    assert "base: 11 of 11 prompts are there already" in said.err
    assert "copy: 11 of 11 prompts are there already" not in said.err
    before, after = json.loads(metrics_before), json.loads((tmp_path / "run" / "metrics.json").read_text())
    for made in (before, after):
        for key in ("seconds", "provenance"):
            del made[key]
    assert before == after


# --- PPO -----------------------------------------------------------------------------------------------------------

TAKES_TIME = {"seconds", "seconds_rollout", "cpu_seconds", "peak_mb"}


@pytest.fixture()
def ppo_that_learns(tiny: Path, preferences: Path, reward_run: Path, tmp_path: Path) -> Callable[..., Path]:
    """A PPO recipe with everything on that a resumed run has to know again."""

    def make(**keys: Any) -> Path:
        all_: dict[str, Any] = {"model_name_or_path": str(tiny), "reward_model_path": str(reward_run), "use_cpu": True}
        all_ |= {"dataset_name": str(preferences), "dataset_test_split": "test", "eval_steps": 2, "eval_prompts": 3}
        all_ |= {"use_peft": True, "lora_r": 4, "response_length": 8, "learning_rate": 1e-3, "warmup_steps": 3}
        all_ |= {"batch_size": 4, "num_mini_batches": 2, "num_ppo_epochs": 2, "save_steps": 3, "patience": 100}
        all_ |= {"kl_target": 0.5, "kl_horizon": 50, "kl_budget": 3.0, "output_dir": str(tmp_path / "unbroken")}
        return write_recipe(tmp_path / "ppo.yaml", **{**all_, **keys})

    return make


def assert_same_ppo(unbroken: Path, broken: Path, breaks: int) -> None:
    """Bit for bit: weights, optimizer, what the loop keeps, and everything logged but time and memory."""
    assert sorted(p.name for p in unbroken.iterdir()) == sorted(p.name for p in broken.iterdir())
    checkpoints = sorted(unbroken.glob("checkpoint-*"))
    assert checkpoints
    for one in [
        unbroken / "adapter_model.safetensors",
        *(path for c in checkpoints for path in c.glob("*.safetensors")),
    ]:
        first, second = load_file(one), load_file(broken / one.relative_to(unbroken))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first), one.name
    for checkpoint in checkpoints:  # kl_coef, the best look, the looks since
        states = [json.loads((run / checkpoint.name / "state.json").read_text()) for run in (unbroken, broken)]
        assert states[0] == states[1]
    assert (unbroken / "completions.jsonl").read_bytes() == (broken / "completions.jsonl").read_bytes()
    logged = [
        [{key: value for key, value in row.items() if key not in TAKES_TIME} for row in metrics(folder)]
        for folder in (unbroken, broken)
    ]
    assert logged[0] == logged[1]
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (unbroken, broken)]
    assert [m["status"] for m in manifests] == ["finished", "finished"]
    assert len(manifests[1]["resumed_at"]) == breaks
    for key in ("best", "warnings", "weights_sha256", "inputs", "prompts"):
        assert manifests[0].get(key) == manifests[1].get(key), key


def kept_of(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))


def test_ppo_killed_at_random_moments(ppo_that_learns: Callable[..., Path], tmp_path: Path) -> None:
    updates = 32
    recipe = ppo_that_learns(total_episodes=4 * updates)
    done("ppo", recipe)
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    an_update = sum(row.get("seconds", 0.0) for row in metrics(unbroken)) / updates
    seed = int(os.environ.get("KILL_SEED") or random.randrange(10**6))
    print(f"KILL_SEED={seed}")  # pytest shows it when the test fails
    chance = random.Random(seed)
    words = [str(Path(sys.executable).parent / "align"), "ppo", str(recipe), "--output_dir", str(broken)]
    for kill in range(3):
        rows = 9 * kill + chance.randint(1, 9)  # the first is of the look before any update
        with open(tmp_path / "said", "w") as said, subprocess.Popen(words, stderr=said) as process:
            deadline = time.monotonic() + 200
            while time.monotonic() < deadline:
                if (broken / "metrics.jsonl").is_file() and (broken / "metrics.jsonl").read_bytes().count(b"\n") > rows:
                    break
                assert process.poll() is None, (tmp_path / "said").read_text()
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 1.5 * an_update))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
        words += [] if kill else ["--resume"]
    done("ppo", recipe, "--output_dir", broken, "--resume")
    assert_same_ppo(unbroken, broken, 3)
    assert len({row["objective/kl_coef"] for row in metrics(unbroken)[1:]}) > updates / 2
    first, *_, last = (load_file(unbroken / f"checkpoint-{n}" / "parameters.safetensors") for n in kept_of(unbroken))
    assert any(not torch.equal(first[name], last[name]) for name in first), "nothing was learnt"


class Killed(BaseException):
    """Stands for a SIGKILL: nothing catches it."""


def test_ppo_dies_after_everything_that_it_writes(
    ppo_that_learns: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run dies after the first write that no run before it died of, until one ends."""
    from align.ppo import trainer
    from align.ppo.record import Record
    from align.run.manifest import Run

    recipe = ppo_that_learns(total_episodes=12, save_steps=1)
    done("ppo", recipe)
    deaths: list[tuple[str, int]] = []
    step = -1

    def deadly(name: str, write: Any) -> Any:
        def write_and_die(*args: Any, **kwargs: Any) -> Any:
            nonlocal step
            made = write(*args, **kwargs)
            step = args[1]["step"] if name == "Run.log" else step
            if (name, step) not in deaths:
                deaths.append((name, step))
                raise Killed
            return made

        return write_and_die

    for owner, name in ((Run, "log"), (Record, "log"), (Record, "draw"), (trainer.PPOTrainer, "save_model")):
        monkeypatch.setattr(owner, name, deadly(f"{owner.__name__}.{name}", getattr(owner, name)))
    monkeypatch.setattr(trainer, "save_checkpoint", deadly("save_checkpoint", trainer.save_checkpoint))
    for _ in range(50):
        try:
            done("ppo", recipe, "--output_dir", tmp_path / "broken", *(["--resume"] if deaths else []))
            break
        except Killed:
            continue
    assert_same_ppo(tmp_path / "unbroken", tmp_path / "broken", len(deaths))
    assert len(deaths) > 10


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_ppo_is_not_resumed_with_something_else(ppo_that_learns: Callable[..., Path], tmp_path: Path) -> None:
    run = tmp_path / "unbroken"
    done("ppo", ppo_that_learns(total_episodes=8, save_steps=1, eval_steps=None, kl_budget=None, patience=None))
    assert "that run is finished" in refused("ppo", tmp_path / "ppo.yaml", "--resume")
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    before = contents(run)
    for words, sentence in (
        (("--learning_rate", "0.5"), "has another `learning_rate` in its recipe"),
        (("--lora_r", "8"), "has another `lora_r` in its recipe"),
        (("--seed", "1"), "has another `seed` in its recipe"),
        (("--total_episodes", "400"), "has another `total_episodes` in its recipe"),
    ):
        assert sentence in refused("ppo", tmp_path / "ppo.yaml", "--resume", *words)
        assert contents(run) == before
    # somebody copied a checkpoint of another recipe there
    parameters = load_file(run / "checkpoint-1" / "parameters.safetensors")
    name, value = next((name, value) for name, value in parameters.items() if "lora_A" in name)
    save_file({**parameters, name: torch.cat([value, value])}, run / "checkpoint-1" / "parameters.safetensors")
    mark_whole(run / "checkpoint-1", 1, 1)
    assert f"a checkpoint of another recipe ({name} does not fit)" in refused("ppo", tmp_path / "ppo.yaml", "--resume")


def test_what_a_kill_left_half_written_does_not_stay(ppo_that_learns: Callable[..., Path], tmp_path: Path) -> None:
    """A checkpoint begun, a character cut in two; and a line separator of Unicode, which ends no line of JSON."""
    keys = {"total_episodes": 8, "save_steps": 1, "eval_steps": None, "kl_budget": None, "patience": None}
    recipe = ppo_that_learns(**keys)
    done("ppo", recipe)
    done("ppo", recipe, "--output_dir", tmp_path / "broken")
    broken = tmp_path / "broken"
    manifest = json.loads((broken / "manifest.json").read_text())
    (broken / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    shutil.copytree(broken / "checkpoint-1", broken / ".checkpoint-2.a1b2c3_4")
    (broken / ".metrics.jsonl.a1b2c3_4").write_text("{")
    (broken / ".mine").write_text("stays")
    separated = json.dumps({"step": 1, "completion": "a\u2028b\x85c"}, ensure_ascii=False).encode()
    with open(broken / "completions.jsonl", "ab") as stream:
        stream.write(separated + b"\n" + '{"step": 1, "completion": "\N{CAT}'.encode()[:-2])
    with open(broken / "metrics.jsonl", "a") as stream:
        stream.write('{"step": 1')
    done("ppo", recipe, "--output_dir", broken, "--resume")
    (broken / ".mine").unlink()
    lines = (broken / "completions.jsonl").read_bytes().split(b"\n")
    assert lines.pop(4) == separated
    (broken / "completions.jsonl").write_bytes(b"\n".join(lines))
    assert_same_ppo(tmp_path / "unbroken", broken, 1)


# --- checkpoints of our own loop ----------------------------------------------------------------------------------


def test_a_checkpoint_brings_parameters_and_optimizer_back(tmp_path: Path) -> None:
    def fresh() -> tuple[dict[str, torch.nn.Parameter], torch.optim.AdamW]:
        torch.manual_seed(0)
        parameters = {name: torch.nn.Parameter(torch.randn(3, 2)) for name in ("a", "b.weight")}
        return parameters, torch.optim.AdamW(parameters.values(), lr=0.1)

    def step(parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.AdamW) -> None:
        sum(p.square().sum() for p in parameters.values()).backward()  # type: ignore[union-attr]
        optimizer.step()
        optimizer.zero_grad()

    parameters, optimizer = fresh()
    assert load_checkpoint(tmp_path, dict(parameters), optimizer) == (0, {})
    for number in range(1, 4):
        step(parameters, optimizer)
        save_checkpoint(tmp_path, number, dict(parameters), optimizer, {"kl_coef": 0.1 * number, "best": None})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]
    again, other = fresh()
    assert load_checkpoint(tmp_path, dict(again), other) == (3, {"format": 1, "kl_coef": 0.1 * 3, "best": None})
    step(parameters, optimizer)
    step(again, other)
    assert all(torch.equal(parameters[name], again[name]) for name in parameters)


def test_a_checkpoint_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter])
    save_checkpoint(tmp_path, 9, {"p": parameter}, optimizer, {})
    calls = []

    def die_in_the_second(*args: Any, **kwargs: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        save_file(*args, **kwargs)

    monkeypatch.setattr("safetensors.torch.save_file", die_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, 10, {"p": parameter}, optimizer, {})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-9"]
    assert load_checkpoint(tmp_path, {"p": parameter}, optimizer) == (9, {"format": 1})


def test_the_best_checkpoint_stays_beside_the_last(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([parameter])
    for step, keep in ((0, [0]), (5, [0]), (10, [0]), (20, [20]), (100, [20])):
        parameter.data.fill_(step)
        save_checkpoint(tmp_path, step, {"p": parameter}, optimizer, {}, keep)
        assert kept_of(tmp_path) == sorted({step, *keep})
    assert load_checkpoint(tmp_path, {"p": parameter}, optimizer)[0] == 100, "by number, not by name"
    load_parameters(tmp_path, 20, {"p": parameter})
    assert parameter.tolist() == [20.0, 20.0]


@pytest.mark.parametrize(
    ("limit", "kept"), [(1, [20, 110]), (2, [20, 100, 110]), (9, [10, 20, 100, 110]), (None, [10, 20, 100, 110])]
)
def test_the_last_checkpoints_stay_as_many_as_asked(limit: int | None, kept: list[int], tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([parameter])
    for step in (10, 20, 100, 110):
        save_checkpoint(tmp_path, step, {"p": parameter}, optimizer, {}, keep=[20], limit=limit)
    assert kept_of(tmp_path) == kept


@pytest.mark.parametrize(
    "others",
    [{"a": torch.ones(3)}, {"b": torch.ones(2)}, {}, {"a": torch.ones(2), "b": torch.ones(2)}],
    ids=["shape", "name", "none", "one more"],
)
def test_a_checkpoint_of_another_recipe_changes_nothing(others: dict[str, torch.Tensor], tmp_path: Path) -> None:
    def trained(values: dict[str, torch.Tensor]) -> tuple[dict[str, torch.nn.Parameter], torch.optim.AdamW]:
        parameters = {name: torch.nn.Parameter(value.clone()) for name, value in values.items()}
        return parameters, torch.optim.AdamW([*parameters.values(), torch.nn.Parameter(torch.ones(1))])

    parameters, optimizer = trained(others)
    save_checkpoint(tmp_path, 1, dict(parameters), optimizer, {})
    parameters, optimizer = trained({"a": torch.zeros(2)})
    with pytest.raises(BadInput, match=r"checkpoint-1: a checkpoint of another recipe \([ab] does not fit\)"):
        load_checkpoint(tmp_path, dict(parameters), optimizer)
    assert parameters["a"].tolist() == [0.0, 0.0]
