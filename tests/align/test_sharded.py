"""FSDP2, ZeRO-2 and ZeRO-3 in two processes on a CPU: they shard, they end where one process ends, and they resume.

What the table of strategies says to work is what is tried here. DeepSpeed's part is skipped where it is not installed.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from align.models.load import find_model, load_reward_model
from align.run.strategies import TABLE
from tests.align.conftest import SAY, WORDS, done, make_tiny_model, refused, write_recipe, write_rows

ROOT = Path(__file__).parents[2]
CONFIGURATIONS = {"fsdp2": "fsdp2", "zero2": "deepspeed_zero2", "zero3": "deepspeed_zero3"}
STAGES = ("sft", "reward", "dpo", "kto")
KINDS: dict[str, dict[str, Any]] = {
    "lora": {"use_peft": True},
    "lora-4bit": {"use_peft": True, "load_in_4bit": True},
    "lora-8bit": {"use_peft": True, "load_in_8bit": True},
    "full": {},
}
Job = tuple[str, str]  # stage and kind

needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs DeepSpeed")
strategies = pytest.mark.parametrize(
    "strategy", ["fsdp2", pytest.param("zero2", marks=needs_deepspeed), pytest.param("zero3", marks=needs_deepspeed)]
)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model at twice the width: a matrix has more than one block of 4-bit numbers in every half."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "wide", steps=40, width=64)


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [
        {
            "prompt": [{"role": "user", "content": f"Say {SAY[n % 5]}."}],
            "completion": [{"role": "assistant", "content": " ".join(WORDS[n % 7 : n % 7 + 1 + n % 5])}],
        }
        for n in range(40)
    ]
    return write_rows(tmp_path_factory.mktemp("data") / "sft.jsonl", texts)


Keys = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def keys(wide: Path, pairs_file: Path, demonstrations: Path) -> Keys:
    """The keys of a recipe, but for its folder and the size of its batches. Steps of four pairs in each of two."""

    def make(stage: str, kind: str, **more: Any) -> dict[str, Any]:
        data = demonstrations if stage == "sft" else pairs_file
        return {
            "model_name_or_path": str(wide),
            "dataset_name": str(data),
            **KINDS[kind],
            "lora_r": 4,
            "lora_dropout": 0.0,  # which draws by process
            "max_steps": 4,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "constant",
            "save_strategy": "no",
            **more,
        }

    return make


@pytest.fixture(scope="module")
def alone(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a run in one process, at the batch size that two have together."""
    home = tmp_path_factory.mktemp("alone")

    def run(stage: str, kind: str, name: str = "", **more: Any) -> Path:
        folder = home / f"{stage}-{kind}{name}"
        if not folder.exists():
            # a pack is a batch of the reward stage, whoever takes it
            batch = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
            batch = batch if stage == "reward" else {"per_device_train_batch_size": 8}
            recipe = write_recipe(Path(f"{folder}.yaml"), **keys(stage, kind, use_cpu=True, **batch, **more))
            done(stage, recipe, "--output_dir", folder)
        return folder

    return run


def launch(strategy: str, commands: list[list[str]], home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run command lines of `align` in two processes, under the configuration that we ship."""
    listed = home / "commands.json"
    listed.write_text(json.dumps(commands))
    configuration = ROOT / "accelerate_configs" / f"{CONFIGURATIONS[strategy]}.yaml"
    start = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(configuration)]
    start += [str(Path(__file__).with_name("sharded_on_cpu.py")), str(listed)]
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # DeepSpeed compiles with ninja
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": binaries, **variables}
    return subprocess.run(start, cwd=home, capture_output=True, text=True, timeout=1500, env=env)


def train(strategy: str, jobs: list[Job], keys: Keys, home: Path, **more: Any) -> dict[Job, Path]:
    """The folders of runs in two processes."""
    commands, folders = [], {}
    for stage, kind in jobs:
        folders[stage, kind] = home / f"{stage}-{kind}"
        batch = {"use_cpu": False, "per_device_train_batch_size": 4}
        recipe = write_recipe(home / f"{stage}-{kind}.yaml", **keys(stage, kind, **batch, **more))
        commands.append([stage, str(recipe), "--output_dir", str(folders[stage, kind])])
    said = launch(strategy, commands, home)
    assert said.returncode == 0, said.stderr[-6000:]
    return folders


def assert_sharded(strategy: str, folder: Path) -> None:
    """Each of the two processes holds about half, and no more than it must."""
    for rank in (0, 1):
        facts = json.loads(Path(f"{folder}-of-rank-{rank}.json").read_text())
        assert facts["kind"] == {"fsdp2": "DistributedType.FSDP"}.get(strategy, "DistributedType.DEEPSPEED")
        assert facts["world"] == 2
        assert 0.4 < facts["moves"] / facts["trained"] < 0.6, facts
        if strategy == "zero2":
            assert facts["here"] == facts["whole"]
        else:
            assert 0.4 < facts["here"] / facts["whole"] < 0.6, facts


def weights(folder: Path) -> dict[str, Any]:
    path = folder / "adapter_model.safetensors"
    return load_file(path if path.is_file() else folder / "model.safetensors")


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def assert_same_run(two: Path, one: Path) -> None:
    """The same losses and the same weights, under the same names."""
    assert losses(two) == pytest.approx(losses(one), abs=1e-4)
    assert len(losses(two)) == 4
    first, second = weights(one), weights(two)
    tied = {"lm_head.weight"}  # FSDP2 and ZeRO-2 write the embeddings again under their other name
    assert second.keys() - tied == first.keys()
    assert "lm_head.weight" not in second or second["lm_head.weight"].equal(second["model.embed_tokens.weight"])
    for name, weight in first.items():
        assert weight.dtype == second[name].dtype
        assert (weight - second[name]).abs().max() < 2e-5, name
    manifest = json.loads((two / "manifest.json").read_text())
    assert (manifest["status"], manifest["processes"]) == ("finished", 2)


def assert_plain_peft_scores_so(folder: Path, base: Path, expected: Path) -> None:
    """The adapter is whole: with nothing but PEFT it scores as the run `expected` does."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    ids = torch.tensor([[5, 9, 30, 12, 7]])
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    plain.config.pad_token_id = 0
    with torch.no_grad():
        score = PeftModel.from_pretrained(plain, folder).eval()(input_ids=ids).logits.item()
        other = load_reward_model(find_model(str(expected))).eval()
        other.config.pad_token_id = 0
        assert score == pytest.approx(other(input_ids=ids).logits.item(), abs=1e-5)
    assert abs(score) > 1e-3


def test_fsdp2_ends_where_one_process_ends(keys: Keys, alone: Any, wide: Path, tmp_path: Path) -> None:
    """What is asked for most, QLoRA, and what is lost most, the reward head; and a whole model with its reference."""
    jobs = [("reward", "lora-4bit"), ("dpo", "full")]
    for job, folder in train("fsdp2", jobs, keys, tmp_path).items():
        assert_sharded("fsdp2", folder)
        assert_same_run(folder, alone(*job))
    assert_plain_peft_scores_so(tmp_path / "reward-lora-4bit", wide, alone("reward", "lora-4bit"))


@pytest.mark.slow
@pytest.mark.timeout(3000)
@strategies
def test_what_the_table_says_to_work_ends_where_one_process_ends(
    strategy: str, keys: Keys, alone: Any, wide: Path, tmp_path: Path
) -> None:
    jobs = [(stage, kind) for stage in STAGES for kind in KINDS if TABLE[stage][kind][strategy].works]
    assert len(jobs) >= 12
    for job, folder in train(strategy, jobs, keys, tmp_path).items():
        assert_sharded(strategy, folder)
        assert_same_run(folder, alone(*job))
    for kind in ("lora", "lora-4bit"):
        assert_plain_peft_scores_so(tmp_path / f"reward-{kind}", wide, alone("reward", kind))
    moments = [json.loads((run / "manifest.json").read_text())["scores"]
               for run in (tmp_path / "reward-full", alone("reward", "full"))]  # fmt: skip
    assert moments[0] == pytest.approx(moments[1], abs=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@strategies
def test_activations_made_again_change_nothing(strategy: str, keys: Keys, alone: Any, tmp_path: Path) -> None:
    jobs = [("sft", "lora"), ("sft", "full"), ("reward", "lora-4bit"), ("dpo", "lora-4bit")]
    for job, folder in train(strategy, jobs, keys, tmp_path, activation_checkpointing=True).items():
        assert_same_run(folder, alone(*job))


@pytest.mark.slow
@pytest.mark.timeout(3000)
@strategies
def test_bf16_as_on_a_gpu(strategy: str, keys: Keys, alone: Any, tmp_path: Path) -> None:
    """Weights of several types meet: the base in bf16 or in 4 bits, LoRA in fp32 or bf16, the score head in either."""
    lora = [("sft", "lora"), ("reward", "lora"), ("dpo", "lora"), ("reward", "lora-4bit"), ("sft", "lora-4bit")]
    for types, jobs in (({"dtype": "bfloat16"}, lora), ({}, [("sft", "full"), ("reward", "full"), ("dpo", "full")])):
        for job, folder in train(strategy, jobs, keys, tmp_path, bf16=True, **types).items():
            assert_sharded(strategy, folder)
            one = alone(*job, name="-bf16", bf16=True, **types)
            assert losses(folder) == pytest.approx(losses(one), abs=0.02)
            assert weights(folder).keys() - {"lm_head.weight"} == weights(one).keys()


@pytest.mark.slow
@pytest.mark.timeout(3000)
@strategies
def test_an_adapter_is_trained_further(strategy: str, keys: Keys, alone: Any, tmp_path: Path) -> None:
    """DPO's reference is a frozen copy of it; a reward run puts a new head beside it."""
    jobs = [("dpo", "lora"), ("reward", "lora"), ("dpo", "lora-4bit")]
    start = {"model_name_or_path": str(alone("sft", "lora"))}
    for job, folder in train(strategy, jobs, keys, tmp_path, **start).items():
        one = alone(*job, name="-further", **start)
        assert_same_run(folder, one)
        assert job[0] == "reward" or losses(one)[0] == pytest.approx(0.693147, abs=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@strategies
def test_a_killed_run_goes_on_to_the_same_weights(strategy: str, keys: Keys, tmp_path: Path) -> None:
    """Killed with nothing said, as the fifth step begins; the last checkpoint is of the third."""
    jobs = [("sft", "full"), ("reward", "lora-4bit"), ("dpo", "lora")]
    saves = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "lr_scheduler_type": "linear"}
    (tmp_path / "whole").mkdir()
    whole = train(strategy, jobs, keys, tmp_path / "whole", **saves)
    for (stage, kind), unbroken in whole.items():
        folder = tmp_path / f"{stage}-{kind}"
        words = [stage, str(tmp_path / "whole" / f"{stage}-{kind}.yaml"), "--output_dir", str(folder)]
        killed = launch(strategy, [words], tmp_path, KILL_AT="5")
        assert killed.returncode != 0
        assert json.loads((folder / "manifest.json").read_text())["status"] == "running"
        said = launch(strategy, [[*words, "--resume"]], tmp_path)
        assert said.returncode == 0, said.stderr[-6000:]
        assert "resuming from" in said.stderr
        assert losses(folder) == losses(unbroken)
        for name, weight in weights(unbroken).items():
            assert weight.equal(weights(folder)[name]), name


@pytest.mark.parametrize("strategy", ["fsdp2", "zero3"])
def test_what_cannot_be_sharded_is_refused(strategy: str, recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCORD_STRATEGY", strategy)
    assert "can't be cut into shards" in refused("sft", recipe(load_in_8bit=True))
    said = refused("sft", recipe(load_in_4bit=True, bf16=True, dtype="float32"))
    assert "sharded as float32 and computed with as bfloat16 (bf16)" in said
