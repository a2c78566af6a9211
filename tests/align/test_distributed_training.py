"""Two processes take the steps of one, to the last digits, with any trainer and kind of training; one of them writes.

A world of two costs half a minute to start, so one world makes many runs. Nothing comes out even: the last step of an
epoch has three of the four rows, so one process has one row in it and one blank.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.align.conftest import PPO, TRAIN, done, pair, write_recipe, write_rows

# Makes run after run. Whatever another process than the first writes is in a folder of its own.
WORLD = """
import json
import os
import sys

from align.run.progress import quiet_libraries

quiet_libraries()

from align.config import read_recipe
from align.ppo.trainer import run_ppo
from align.train.dpo import run_dpo
from align.train.kto import run_kto
from align.train.online import run_online
from align.train.reward import run_reward
from align.train.sft import run_sft

RUN = {"sft": run_sft, "reward": run_reward, "dpo": run_dpo, "kto": run_kto, "ppo": run_ppo}
for verb, path in json.load(open(sys.argv[1])):
    recipe = read_recipe(path, [])
    if os.environ["RANK"] != "0":
        recipe["output_dir"] += "-of-another"
    if verb in RUN:
        RUN[verb](recipe, path)
    else:
        run_online(verb, recipe, path)
"""
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "4-bit": {"load_in_4bit": True},
    "8-bit": {"load_in_8bit": True},
    "full": {"use_peft": False},
}
TRAINERS = ("sft", "reward", "dpo", "kto")
FAST = [("sft", "lora"), ("reward", "4-bit"), ("dpo", "lora")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Eleven rows for each trainer, no two prompts alike; for KTO, which can't weigh rows, twelve pairs."""
    home = tmp_path_factory.mktemp("uneven")
    words = ["red", "green", "blue", "cat", "dog", "fox", "sun", "moon", "star", "tea", "milk", "soup"]
    rows = [pair(f"Say {word} {n}.", word, " ".join(words[: n % 4 + 3])) for n, word in enumerate(words)]
    pairs = write_rows(home / "pairs.jsonl", rows[:11])
    said = [{"prompt": row["prompt"], "completion": row["rejected"]} for row in rows[:11]]
    demonstrations = write_rows(home / "demonstrations.jsonl", said)
    return {"sft": demonstrations, "kto": write_rows(home / "even.jsonl", rows), "reward": pairs, "dpo": pairs}


def recipe_of(verb: str, kind: str, processes: int, folder: Path, model: Path, data: dict[str, Path]) -> Path:
    """Two epochs in which a step has four rows, or two packs, whatever the number of processes."""
    keys: dict[str, Any] = {**TRAIN, "max_steps": -1, "num_train_epochs": 2, "learning_rate": 1e-3, "lora_dropout": 0.0}
    keys |= {"model_name_or_path": str(model), "dataset_name": str(data[verb]), **KINDS[kind]}
    keys |= {"per_device_train_batch_size": 4 // processes}
    if verb == "reward":
        keys |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2 // processes}
    return write_recipe(folder.with_suffix(".yaml"), **keys, output_dir=str(folder))


def world_of_two(home: Path, runs: list[tuple[str, Path]]) -> str:
    """Make the runs in one world; what it said."""
    (home / "world.py").write_text(WORLD)
    (home / "runs.json").write_text(json.dumps([(verb, str(recipe)) for verb, recipe in runs]))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*torchrun, str(home / "world.py"), str(home / "runs.json")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=550, env=dict(os.environ))
    assert said.returncode == 0, said.stderr
    return said.stderr


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def assert_same_run(one: Path, two: Path, tolerance: float) -> None:
    """Losses of every step and the weights at the end."""
    assert losses(one) == pytest.approx(losses(two), abs=tolerance)
    assert len(set(losses(one))) == len(losses(one)) > 5, "nothing is learnt"
    (name,) = (path.name for path in one.glob("*model.safetensors"))
    first, second = load_file(one / name), load_file(two / name)
    assert first.keys() == second.keys()
    for key, weight in first.items():
        assert (weight - second[key]).abs().max() < tolerance, key
    made = [json.loads((folder / "manifest.json").read_text()) for folder in (one, two)]
    assert [manifest["processes"] for manifest in made] == [1, 2]
    assert [manifest["status"] for manifest in made] == ["finished", "finished"]
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())


def assert_one_writes(said: str, home: Path, runs: int) -> None:
    assert not list(home.glob("*-of-another*")), "a process other than the first wrote something"
    assert said.count("finished in") == runs
    steps = [line for line in said.splitlines() if line.startswith("step 2/")]
    assert len(steps) == sum(1 for _ in home.glob("*-two/metrics.jsonl")), "a line was said twice"


def test_two_processes_take_the_steps_of_one(tiny: Path, data: dict[str, Path], tmp_path: Path) -> None:
    runs = []
    for verb, kind in FAST:
        done(verb, recipe_of(verb, kind, 1, tmp_path / f"{verb}-{kind}-one", tiny, data))
        runs.append((verb, recipe_of(verb, kind, 2, tmp_path / f"{verb}-{kind}-two", tiny, data)))
    said = world_of_two(tmp_path, runs)
    for verb, kind in FAST:
        assert_same_run(tmp_path / f"{verb}-{kind}-one", tmp_path / f"{verb}-{kind}-two", 1e-5)
    assert_one_writes(said, tmp_path, len(runs))


@pytest.mark.slow
def test_every_trainer_and_kind_takes_the_steps_of_one(tiny: Path, data: dict[str, Path], tmp_path: Path) -> None:
    """What the table of strategies says of DDP. bitsandbytes rounds what goes into an 8-bit layer, and KTO's reference
    point is a mean over processes that is added up in another order.
    """
    pairs = [(verb, kind) for verb in TRAINERS for kind in KINDS if (verb, kind) not in FAST]
    runs = []
    for verb, kind in pairs:
        done(verb, recipe_of(verb, kind, 1, tmp_path / f"{verb}-{kind}-one", tiny, data))
        runs.append((verb, recipe_of(verb, kind, 2, tmp_path / f"{verb}-{kind}-two", tiny, data)))
    said = world_of_two(tmp_path, runs)
    for verb, kind in pairs:
        tolerance = 1e-3 if kind == "8-bit" else 1e-4 if verb == "kto" else 1e-5
        assert_same_run(tmp_path / f"{verb}-{kind}-one", tmp_path / f"{verb}-{kind}-two", tolerance)
    assert_one_writes(said, tmp_path, len(runs))


@pytest.mark.slow
def test_rows_that_count_twice_are_said(tiny: Path, data: dict[str, Path], tmp_path: Path) -> None:
    """KTO's loss, and those of TRL that ours do not replace, can't weigh rows: 22 make five steps of 4 and one of 2."""
    uneven = {**data, "kto": data["dpo"]}
    runs = [("kto", recipe_of("kto", "lora", 2, tmp_path / "kto-two", tiny, uneven))]
    keys = json.loads(recipe_of("dpo", "lora", 2, tmp_path / "dpo-two", tiny, data).read_text())
    runs.append(("dpo", write_recipe(tmp_path / "apo.yaml", **keys, loss_type="apo_zero")))
    said = world_of_two(tmp_path, runs)
    assert "22 rows don't divide by 2 processes of 2: 2 of them count twice in the last step of an epoch" in said
    assert "11 rows don't divide by 2 processes of 2: 1 of them count twice in the last step of an epoch" in said
    made = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("kto-two", "dpo-two")]
    assert [manifest["rows_repeated"] for manifest in made] == [2, 1]


REWARDS = "def o(completions, **columns):\n    return [said[-1]['content'].count('o') for said in completions]\n"


def online(home: Path, tiny: Path, preferences: Path) -> dict[str, Any]:
    """Keys that PPO, RLOO and GRPO share."""
    (home / "rewards.py").write_text(REWARDS)
    keys = {"model_name_or_path": str(tiny), "dataset_name": str(preferences), "use_cpu": True, "lora_dropout": 0.0}
    return {**keys, "reward_funcs": str(home / "rewards.py:o"), "learning_rate": 1e-3}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["4-bit", "8-bit", "full"])  # LoRA is in test_distributed.py
def test_ppo_of_every_kind(kind: str, tiny: Path, preferences: Path, tmp_path: Path) -> None:
    """A world for each: PPO leaves it at its end."""
    keys = {**PPO, **online(tmp_path, tiny, preferences), **KINDS[kind], "total_episodes": 12, "num_mini_batches": 2}
    one, two = (tmp_path / f"ppo-{number}" for number in ("one", "two"))
    done("ppo", write_recipe(tmp_path / "one.yaml", **keys, output_dir=str(one)))
    said = world_of_two(tmp_path, [("ppo", write_recipe(tmp_path / "two.yaml", **keys, output_dir=str(two)))])
    (name,) = (path.name for path in one.glob("*model.safetensors"))
    first, second = load_file(one / name), load_file(two / name)
    tolerance = 1e-3 if kind == "8-bit" else 1e-5
    assert max(float((weight - second[key]).abs().max()) for key, weight in first.items()) < tolerance
    assert not list(tmp_path.glob("*-of-another*"))
    assert said.count("update 3/3") == 1


@pytest.mark.slow
def test_rloo_and_grpo_of_every_kind(tiny: Path, preferences: Path, tmp_path: Path) -> None:
    """What they draw is every process's own, so they are not equal to one process; they run, and one writes."""
    runs = []
    for verb in ("rloo", "grpo"):
        for kind, more in KINDS.items():
            keys = {**TRAIN, **online(tmp_path, tiny, preferences), "max_steps": 2, **more}
            keys |= {"num_generations": 2, "max_completion_length": 8, "per_device_train_batch_size": 2}
            recipe = tmp_path / f"{verb}-{kind}.yaml"
            runs.append((verb, write_recipe(recipe, **keys, output_dir=str(recipe.with_suffix("")))))
    world_of_two(tmp_path, runs)
    for _, recipe in runs:
        manifest = json.loads((recipe.with_suffix("") / "manifest.json").read_text())
        assert (manifest["status"], manifest["processes"]) == ("finished", 2)
    assert not list(tmp_path.glob("*-of-another*"))
