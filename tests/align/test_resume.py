"""A run that is killed and resumed ends where the unbroken one ends."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from align.run.checkpoint import load_checkpoint, save_checkpoint
from tests.align.conftest import TRAIN, done, write_recipe

STEPS = 90


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=1e-6, rtol=1e-5)


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def recipe_of(folder: Path, tiny: Path, data: Path) -> Path:
    keys = {**TRAIN, "max_steps": STEPS, "save_strategy": "steps", "save_steps": 20, "per_device_train_batch_size": 4}
    keys |= {"learning_rate": 1e-3, "lora_dropout": 0.1, "seed": 3}
    return write_recipe(folder, **keys, model_name_or_path=str(tiny), dataset_name=str(data))


@pytest.mark.parametrize("verb", ["dpo", "reward"])
def test_killed_and_resumed(verb: str, tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path / "r.yaml", tiny, pairs_file)
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    done(verb, recipe, "--output_dir", unbroken)

    words = [str(Path(sys.executable).parent / "align"), verb, str(recipe), "--output_dir", str(broken)]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, env=dict(os.environ)) as process:
        deadline = time.monotonic() + 200
        while not (broken / "checkpoint-20" / "trainer_state.json").is_file() and time.monotonic() < deadline:
            assert process.poll() is None, "it ended before its first checkpoint"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert json.loads((broken / "manifest.json").read_text())["status"] == "running"
    # the worst moment to be killed in: a later checkpoint begun and not ended, a line of metrics not ended
    shutil.copytree(broken / "checkpoint-20", broken / "checkpoint-80")
    (broken / "checkpoint-80" / "trainer_state.json").write_text('{"global_step": 8')
    with open(broken / "metrics.jsonl", "a") as stream:
        stream.write('{"step": 77, "loss"')

    said = done(verb, recipe, "--output_dir", broken, "--resume")
    assert "resuming from" in said.err
    assert_same(weights(unbroken), weights(broken))
    steps = [row["step"] for row in metrics(broken) if "loss" in row]
    assert steps == list(range(1, STEPS + 1))
    losses = [[row["loss"] for row in metrics(folder) if "loss" in row] for folder in (unbroken, broken)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    manifest = json.loads((broken / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert len(manifest["resumed_at"]) == 1


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
    keys |= {"reward_model_path": str(reward_run), "output_dir": str(tmp_path / "run"), "max_new_tokens": 4}
    recipe = write_recipe(tmp_path / "e.yaml", **keys)
    done("evaluate", recipe)
    metrics_before = (tmp_path / "run" / "metrics.json").read_text()
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    (tmp_path / "run" / "metrics.json").unlink()
    (tmp_path / "run" / "responses-copy.jsonl").unlink()
    said = done("evaluate", recipe, "--resume")
    assert "base: responses are there already" in said.err
    assert "copy: responses are there already" not in said.err
    before, after = json.loads(metrics_before), json.loads((tmp_path / "run" / "metrics.json").read_text())
    for made in (before, after):
        for key in ("seconds", "provenance"):
            del made[key]
    assert before == after


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
    assert load_checkpoint(tmp_path, dict(parameters), optimizer) == 0
    for number in range(1, 4):
        step(parameters, optimizer)
        save_checkpoint(tmp_path, number, dict(parameters), optimizer)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]
    again, other = fresh()
    assert load_checkpoint(tmp_path, dict(again), other) == 3
    step(parameters, optimizer)
    step(again, other)
    assert all(torch.equal(parameters[name], again[name]) for name in parameters)


def test_a_checkpoint_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter])
    save_checkpoint(tmp_path, 9, {"p": parameter}, optimizer)
    calls = []

    def die_in_the_second(*args: Any, **kwargs: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        save_file(*args, **kwargs)

    monkeypatch.setattr("safetensors.torch.save_file", die_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, 10, {"p": parameter}, optimizer)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-9"]
    assert load_checkpoint(tmp_path, {"p": parameter}, optimizer) == 9
