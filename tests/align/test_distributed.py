"""Two processes on a CPU: they are two, they agree, the run folder is written once, a mistake is said once."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from align.run.launch import check_world, sharded
from preferences.errors import BadInput
from tests.align.conftest import PPO, TRAIN, done, refused, write_recipe, write_rows


def start(*words: Any, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`align WORDS` as its own process, which starts two more."""
    command = [str(Path(sys.executable).parent / "align"), *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=400, env=dict(os.environ))


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


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


PPO_ON_EVERY_RANK = """
import sys
import torch
import align.ppo.trainer as trainer
from align.config import read_recipe

train = trainer.train
def and_compare(args, roles, tokenizer, prompts, accelerator, run):
    train(args, roles, tokenizer, prompts, accelerator, run)
    parts = [p for role in ("policy", "value") for p in roles.parameters_of(role).values()]
    weights = torch.cat([p.detach().flatten() for p in parts])
    first, second = accelerator.gather(weights.unsqueeze(0))
    assert torch.equal(first, second), "the two processes ended with other weights"
    sys.stdout.write(f"the weights are equal {accelerator.num_processes}\\n")

trainer.train = and_compare
trainer.run_ppo(read_recipe(sys.argv[1], []), sys.argv[1])
"""


def test_ppo_in_two_processes_ends_with_equal_weights(
    tiny: Path, pairs_file: Path, reward_run: Path, tmp_path: Path
) -> None:
    keys = {**PPO, "model_name_or_path": str(tiny), "dataset_name": str(pairs_file), "learning_rate": 1e-2}
    keys |= {"reward_model_path": str(reward_run), "output_dir": str(tmp_path / "ppo"), "total_episodes": 24}
    keys |= {"batch_size": 8, "num_mini_batches": 2, "num_ppo_epochs": 2}
    recipe = write_recipe(tmp_path / "ppo.yaml", **keys)
    (tmp_path / "both.py").write_text(PPO_ON_EVERY_RANK)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    said = subprocess.run(
        [*torchrun, tmp_path / "both.py", recipe], capture_output=True, text=True, timeout=400, env=dict(os.environ)
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("the weights are equal 2") == 2
    assert said.stderr.count("update 3/3") == 1
    assert json.loads((tmp_path / "ppo" / "manifest.json").read_text())["processes"] == 2
    rows = metrics(tmp_path / "ppo")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[0]["objective/kl"] == 0.0
    assert rows[0]["val/ratio"] == pytest.approx(1.0, abs=0.2)
    assert all(torch.tensor(list(row.values())).isfinite().all() for row in rows)


@pytest.mark.parametrize(
    ("variable", "kind"), [("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")]
)
def test_ppo_does_not_run_sharded(
    variable: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ppo_recipe: Any
) -> None:
    assert sharded() is None
    monkeypatch.setenv(variable, "true")
    assert f"does not run under {kind}" in refused("ppo", ppo_recipe())


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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("num_processes: [", "is not YAML"),
        ("distributed_type: MULTI_GPU\n", "says no `num_processes`"),
        ("distributed_type: DEEPSPEED\nnum_processes: 2\n", "DeepSpeed"),
    ],
)
def test_configurations_that_are_not_right(text: str, said: str, recipe: Any, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    assert said in refused("dpo", recipe(), "--accelerate_config", tmp_path / "config.yaml")


def test_every_configuration_that_we_ship_is_whole() -> None:
    import yaml

    for path in (Path(__file__).parents[2] / "accelerate_configs").glob("*.yaml"):
        config = yaml.safe_load(path.read_text())
        assert config["num_processes"] == (1 if path.stem == "single_gpu" else 2), path
        assert path.read_text().startswith("# "), path


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
