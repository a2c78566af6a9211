"""Two processes on a CPU: they are two and agree, with one, too; a folder is written once, a mistake is said once."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from align.run.launch import check_world
from preferences.errors import BadInput
from preferences.files import read_jsonl
from tests.align.conftest import PPO, TRAIN, done, pair, refused, write_recipe, write_rows


def start(*words: Any, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`align WORDS` as its own process, which starts two more."""
    command = [str(Path(sys.executable).parent / "align"), *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=400, env=dict(os.environ))


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_dpo_in_two_processes(tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    """Two processes with 4 pairs each take the step of one process with 8, and a second run is refused once."""
    keys = {**TRAIN, "model_name_or_path": str(tiny), "dataset_name": str(pairs_file), "max_steps": 2}
    one = write_recipe(tmp_path / "one.yaml", **keys, per_device_train_batch_size=8)
    two = write_recipe(tmp_path / "two.yaml", **keys, per_device_train_batch_size=4)
    done("dpo", one, "--output_dir", tmp_path / "one")
    words = ("dpo", two, "--output_dir", tmp_path / "two", "--accelerate_config", "cpu")
    said = start(*words, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert said.stderr.count("finished in") == 1
    manifest = json.loads((tmp_path / "two" / "manifest.json").read_text())
    assert (manifest["processes"], manifest["status"]) == (2, "finished")
    assert [row["step"] for row in metrics(tmp_path / "two") if "loss" in row] == [1, 2]
    for first, second in zip(metrics(tmp_path / "one")[:2], metrics(tmp_path / "two")[:2], strict=True):
        assert first["loss"] == pytest.approx(second["loss"], abs=2e-3)
    again = start(*words, cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr.count("already holds a run") == 1
    assert "Traceback" not in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", ["bradley_terry", "plackett_luce"])
def test_reward_in_two_processes(loss_type: str, tiny: Path, preferences: Path, tmp_path: Path) -> None:
    """Two processes with a pack each take the steps of one process with two packs a step: the same weights come out."""
    keys = {**TRAIN, "model_name_or_path": str(tiny), "dataset_name": str(preferences), "max_steps": 4}
    keys |= {"loss_type": loss_type, "per_device_train_batch_size": 2, "learning_rate": 1e-3}
    one = write_recipe(tmp_path / "one.yaml", **keys, gradient_accumulation_steps=2)
    two = write_recipe(tmp_path / "two.yaml", **keys)
    done("reward", one, "--output_dir", tmp_path / "one")
    said = start("reward", two, "--output_dir", tmp_path / "two", "--accelerate_config", "cpu", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    first, second = (load_file(tmp_path / run / "adapter_model.safetensors") for run in ("one", "two"))
    for name, weight in first.items():
        assert (weight - second[name]).abs().max() < 1e-5, name
    for row, other in zip(metrics(tmp_path / "one")[:4], metrics(tmp_path / "two")[:4], strict=True):
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-4)
        assert row["accuracy"] == pytest.approx(other["accuracy"], abs=1e-6)


# Runs a PPO recipe, and keeps what this process has learnt after every update, before a roll-back to the best.
KEEP_WEIGHTS = """
import os
import sys
from pathlib import Path

from safetensors.torch import save_file
from transformers import TrainerCallback
from trl import ModelConfig

from align.config import parse, read_recipe
from align.ppo.config import PPOConfig
from align.ppo.trainer import PPOTrainer

recipe = read_recipe(sys.argv[1], [])
args, model_args = parse(recipe, (PPOConfig, ModelConfig), sys.argv[1])
kept = Path(f"{args.output_dir}-of-rank-{os.environ.get('RANK', '0')}")
kept.mkdir()

class Keep(TrainerCallback):
    def on_step_end(self, args, state, control, **more):
        save_file({n: p.detach().clone() for n, p in trainer.learner.parameters.items()}, kept / str(state.global_step))

trainer = PPOTrainer(recipe["model_name_or_path"], args=args, model_args=model_args, recipe=recipe, callbacks=[Keep()])
trainer.train()
"""
# The first abstains on about half the responses, so on whole mini-batches, too.
REWARDS = """
import os

calls = 0

def likes_o(prompts, completions, **columns):
    texts = [completion[-1]["content"] for completion in completions]
    return [text.count("o") + len(text) / 16 if len(text.split()) % 2 else None for text in texts]

def wrong_in_update_2_of_rank_1(completions, **columns):
    global calls
    calls += 1  # once while setting up, then once an update: the one held-out prompt is rank 0's
    wrong = calls == 3 and os.environ.get("RANK") == "1"
    return [float("nan") if wrong else len(set(c[-1]["content"])) / 8 for c in completions]
"""
TAKES_TIME = {"seconds", "seconds_rollout", "cpu_seconds", "peak_mb"}


def assert_same_metrics(first: Path, second: Path) -> float:
    """Two runs logged the same, but for time and memory; the largest difference."""
    largest = 0.0
    for one, other in zip(metrics(first), metrics(second), strict=True):
        assert one.keys() == other.keys()
        for key in one.keys() - TAKES_TIME:
            assert one[key] == pytest.approx(other[key], abs=1e-4, rel=1e-4), (one["step"], key)
            largest = max(largest, abs(one[key] - other[key]))
    return largest


def completions(folder: Path) -> list[tuple[Any, ...]]:
    rows = read_jsonl(folder / "completions.jsonl")
    return [(row["step"], row["prompt"], row["completion"], row["ended"]) for _, row in rows]


def largest_difference(first: Path, second: Path) -> float:
    one, other = load_file(first), load_file(second)
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_ppo_in_two_processes_is_ppo_in_one(
    tiny: Path, preferences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing comes out even here: 6 rollouts in 3 mini-batches, which 2 processes share by single ones, 5 held-out
    prompts, and a function that says nothing about many responses.
    """
    (tmp_path / "rewards.py").write_text(REWARDS)
    keys: dict[str, Any] = {"model_name_or_path": str(tiny), "dataset_name": str(preferences)}
    keys |= {"reward_funcs": str(tmp_path / "rewards.py:likes_o"), "use_peft": True, "lora_r": 4, "use_cpu": True}
    keys |= {"response_length": 12, "learning_rate": 1e-3, "seed": 2}
    keys |= {"total_episodes": 36, "batch_size": 6, "num_mini_batches": 3, "num_ppo_epochs": 2}
    keys |= {"kl_target": 0.5, "kl_horizon": 50, "entropy_coef": 0.01, "missing_eos_penalty": 1.0, "save_steps": 5}
    keys |= {"dataset_test_split": "test", "eval_steps": 2, "eval_prompts": 5, "kl_budget": 1.2}
    one, two = tmp_path / "one", tmp_path / "two"
    recipes = [str(write_recipe(Path(f"{run}.yaml"), **keys, output_dir=str(run))) for run in (one, two)]
    (tmp_path / "keep.py").write_text(KEEP_WEIGHTS)
    monkeypatch.setattr(sys, "argv", ["keep.py", recipes[0]])
    runpy.run_path(str(tmp_path / "keep.py"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*torchrun, str(tmp_path / "keep.py"), recipes[1]]
    said = subprocess.run(command, capture_output=True, text=True, timeout=400, env=dict(os.environ))
    assert said.returncode == 0, said.stderr
    assert said.stderr.count("update 6/6") == 1

    for update in range(1, 7):
        alone, *ranks = (Path(f"{run}-of-rank-{rank}/{update}") for run, rank in ((one, 0), (two, 0), (two, 1)))
        assert ranks[0].read_bytes() == ranks[1].read_bytes(), f"the processes differ after update {update}"
        assert largest_difference(alone, ranks[0]) < 1e-5
        assert update == 1 or largest_difference(alone, alone.with_name("1")) > 1e-3, "the weights don't move"
    assert completions(one) == completions(two)
    assert assert_same_metrics(one, two) < 1e-3
    rows = metrics(one)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5, 6]
    assert 0 < sum(row["response/abstained"] for row in rows[1:]) < 6
    assert len({row["objective/kl_coef"] for row in rows[1:]}) == 6
    assert largest_difference(one / "adapter_model.safetensors", two / "adapter_model.safetensors") < 1e-5
    made = [json.loads((folder / "manifest.json").read_text()) for folder in (one, two)]
    assert [m["processes"] for m in made] == [1, 2]
    assert made[0]["best"] == pytest.approx(made[1]["best"], abs=1e-4)
    assert made[0]["warnings"] == made[1]["warnings"]
    assert max(row.get("eval/kl", 0.0) for row in rows) > keys["kl_budget"], "the budget is not tried"
    assert 0 < made[0]["best"]["step"] < 6, "the roll-back is not tried"
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in two.iterdir())


def test_what_one_process_finds_wrong_ends_both(
    tiny: Path, preferences: Path, reward_run: Path, tmp_path: Path
) -> None:
    """In the middle of a run, in the second process only; and the run goes on from there in a single one."""
    (tmp_path / "rewards.py").write_text(REWARDS)
    keys: dict[str, Any] = {**PPO, "model_name_or_path": str(tiny), "dataset_name": str(preferences), "use_cpu": True}
    keys |= {"reward_model_path": str(reward_run), "total_episodes": 12, "save_steps": 1, "learning_rate": 1e-3}
    keys |= {"reward_funcs": str(tmp_path / "rewards.py:wrong_in_update_2_of_rank_1")}
    keys |= {"dataset_test_split": "test", "eval_steps": 9, "eval_prompts": 1}
    recipe = write_recipe(tmp_path / "ppo.yaml", **keys, output_dir=str(tmp_path / "two"))
    said = start("ppo", recipe, "--accelerate_config", "cpu", cwd=tmp_path)
    assert said.returncode == 2, said.stderr
    assert said.stderr.count("error: ") == 1
    assert "wrong_in_update_2_of_rank_1: gave nan for response 1 of 2" in said.stderr
    assert "Traceback" not in said.stderr
    assert [row["step"] for row in metrics(tmp_path / "two")] == [0, 1]
    assert json.loads((tmp_path / "two" / "manifest.json").read_text())["status"] == "running"

    assert "resuming after update 1" in done("ppo", recipe, "--resume").err
    done("ppo", recipe, "--output_dir", tmp_path / "one")
    assert completions(tmp_path / "one") == completions(tmp_path / "two")
    assert_same_metrics(tmp_path / "one", tmp_path / "two")
    ends = [tmp_path / name / "adapter_model.safetensors" for name in ("one", "two")]
    assert largest_difference(*ends) < 1e-5


@pytest.mark.slow
def test_an_audit_that_stops_is_said_once(tiny: Path, tmp_path: Path) -> None:
    """One process audits; the other one ends without a word."""
    data = write_rows(tmp_path / "same.jsonl", [pair(f"Say {n}.", "red", "red") for n in range(8)])
    keys = {**TRAIN, "model_name_or_path": str(tiny), "dataset_name": str(data), "output_dir": str(tmp_path / "out")}
    recipe = write_recipe(tmp_path / "reward.yaml", **keys)
    said = start("reward", recipe, "--accelerate_config", "cpu", cwd=tmp_path)
    assert said.returncode == 2
    assert said.stderr.count("the audit stops at degenerate") == 1
    assert "Traceback" not in said.stderr
    assert not (tmp_path / "out").exists()


def test_a_world_of_one_where_two_were_asked_for(monkeypatch: pytest.MonkeyPatch, recipe: Any, ppo_recipe: Any) -> None:
    check_world(1)
    monkeypatch.setenv("CONCORD_PROCESSES", "2")
    check_world(2)
    with pytest.raises(BadInput, match="2 processes were asked for and 1 came about"):
        check_world(1)
    for verb, made in (("dpo", recipe()), ("ppo", ppo_recipe())):
        assert "each train alone" in refused(verb, made)


def test_a_launch_by_hand_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    check_world(4)
    with pytest.raises(BadInput, match="4 processes were asked for and 1 came about"):
        check_world(1)


def test_accelerates_own_cpu_launch_is_refused_instead_of_training_alone(
    tiny: Path, pairs_file: Path, tmp_path: Path
) -> None:
    """With MULTI_CPU accelerate starts one process, and would say that all is well."""
    config = tmp_path / "multi_cpu.yaml"
    config.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_CPU\nuse_cpu: true\nnum_machines: 1\n"
        "num_processes: 2\nmixed_precision: 'no'\nmachine_rank: 0\n"
    )
    recipe = write_recipe(
        tmp_path / "dpo.yaml", **TRAIN, model_name_or_path=str(tiny), dataset_name=str(pairs_file), output_dir="run"
    )
    said = start("dpo", recipe, "--accelerate_config", config, cwd=tmp_path)
    assert said.returncode == 2, said.stderr
    assert said.stderr.count("error: ") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_rows_of_a_worker_are_said_once(tiny: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [{"prompt": "", "chosen": "a", "rejected": "b"}])
    recipe = write_recipe(
        tmp_path / "r.yaml", **TRAIN, model_name_or_path=str(tiny), dataset_name=str(data), output_dir="run"
    )
    said = start("reward", recipe, "--accelerate_config", "cpu", cwd=tmp_path)
    assert said.returncode == 2
    assert said.stderr.count("the prompt is empty") == 1
    assert "Traceback" not in said.stderr
    assert not (tmp_path / "run").exists()
