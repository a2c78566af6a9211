"""What the reference holds of the responses, computed once: the same numbers wherever they come from."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from align.train.keeping import Keeper
from align.train.reference import Text, in_batches, texts_of
from tests.align.conftest import done, pair, write_recipe, write_rows
from tests.align.test_dpo_losses import trainer_of

COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
ROWS = [
    pair("Say red.", "red", "red and a cat and a dog"),
    pair("Say red.", "red sun", "red"),
    pair("Say sun.", "the sun is a star", "tea"),
    pair("Say tea, please.", "tea milk", "moon"),
    pair("Say moon, and then say the sun, and a star.", "moon sun star", "milk"),
]
SAID = "what the reference holds of"


@pytest.fixture()
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the folder where the numbers will be."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "concord" / "reference"


@pytest.fixture()
def keys(tiny: Path, tmp_path: Path) -> dict[str, Any]:
    return {"model_name_or_path": str(tiny), "dataset_name": str(write_rows(tmp_path / "rows.jsonl", ROWS))}


def held(trainer: Any) -> list[list[float]]:
    return [list(trainer.train_dataset[column]) for column in COLUMNS]


def test_they_are_kept_and_not_computed_again(
    cache: Path, keys: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = trainer_of(tmp_path, **keys)
    assert (
        f"{SAID} 9 responses is computed once; 0 are known already" in capsys.readouterr().err
    )  # one stands in two rows
    assert sum(len(path.read_text().splitlines()) for path in cache.glob("*.jsonl")) == 9
    again = trainer_of(tmp_path, use_peft=True, **keys)  # its base is the same
    assert SAID not in capsys.readouterr().err
    assert held(again) == held(first)

    more = write_rows(tmp_path / "more.jsonl", [*ROWS, pair("Say cat.", "cat", "dog")])
    some = trainer_of(tmp_path, **{**keys, "dataset_name": str(more)})
    assert f"{SAID} 11 responses is computed once; 9 are known already" in capsys.readouterr().err
    assert [column[:5] for column in held(some)] == held(first)
    for path in cache.glob("*.jsonl"):
        path.unlink()
    assert held(trainer_of(tmp_path, **keys)) == held(first)


def test_other_weights_are_another_reference(cache: Path, keys: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    first = held(trainer_of(tmp_path, **keys))
    other = shutil.copytree(tiny, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] += 0.5
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    changed = held(trainer_of(tmp_path, **{**keys, "model_name_or_path": str(other)}))
    assert not {number for column in first for number in column} & {number for column in changed for number in column}


CUTS: list[dict[str, Any]] = [
    {},
    {"max_length": 40},
    {"max_length": 30},
    {"max_length": 30, "truncation_mode": "keep_end"},
    {"use_peft": True, "load_in_4bit": True},
]


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_they_are_what_trl_computes(cut: dict[str, Any], cache: Path, keys: dict[str, Any], tmp_path: Path) -> None:
    ours = trainer_of(tmp_path, **keys, **cut)
    trls = trainer_of(tmp_path, trls=True, precompute_ref_log_probs=True, **keys, **cut)
    assert ours._shares(ours.model)
    assert held(ours) == [pytest.approx(column, abs=1e-4) for column in held(trls)]
    ours.sharing = None  # as for a model that takes no shared prompts
    texts = [ours.collate.texts(row) for row in ours.train_dataset]
    ours.model.eval()
    for side, column in enumerate(held(trls)):
        base = ours.model.disable_adapter() if "use_peft" in cut else torch.no_grad()
        with base:
            assert ours._total_logprobs([both[side] for both in texts]) == pytest.approx(column, abs=1e-4)


def test_no_second_model_is_in_memory(cache: Path, keys: dict[str, Any], tmp_path: Path) -> None:
    assert trainer_of(tmp_path, **keys).ref_model is None


def test_a_run_that_comes_to_few_rows_looks_at_those_only(cache: Path, keys: dict[str, Any], tmp_path: Path) -> None:
    for little in ({"max_steps": 1}, {"max_steps": -1, "num_train_epochs": 0.5}):
        few = trainer_of(tmp_path, use_peft=True, **little, **keys)
        assert not set(COLUMNS) & set(few.train_dataset.column_names)
    assert not cache.exists()
    synced = trainer_of(tmp_path, sync_ref_model=True, **keys)  # a reference that moves
    assert synced.ref_model is not None
    assert not set(COLUMNS) & set(synced.train_dataset.column_names)


class Killed(BaseException):
    """Stands for a SIGKILL: nothing catches it."""


def test_a_resumed_run_keeps_the_reference_of_its_start(
    cache: Path, keys: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a whole model, whose weights are others by then; and nothing is known any more."""
    run = {**keys, "max_steps": 6, "save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-2}
    recipe = write_recipe(tmp_path / "dpo.yaml", **run, per_device_train_batch_size=3)
    done("dpo", recipe, "--output_dir", tmp_path / "unbroken")

    def die(self: Any, args: Any, state: Any, *more: Any, **named: Any) -> None:
        if state.global_step == 4:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "on_save", die)
        with pytest.raises(Killed):
            done("dpo", recipe, "--output_dir", tmp_path / "broken")
    shutil.rmtree(cache)
    said = done("dpo", recipe, "--output_dir", tmp_path / "broken", "--resume")
    assert SAID in said.err
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("unbroken", "broken"))
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())


PROCESS = """
from pathlib import Path
from accelerate import Accelerator
from align.train.reference import Text, computed_once
accelerator = Accelerator(cpu=True)
made = []
def look(texts):
    made.append(len(texts))
    return [sum(text.ids) / 7 for text in texts]
texts = [Text((1, 2, prompt, response), 3) for prompt in range(50) for response in range(3)]
held = computed_once(len(texts), texts.__getitem__, look, "weights", accelerator, 4)
assert held == [sum(text.ids) / 7 for text in texts]
assert accelerator.num_processes == 2
Path(f"made-{accelerator.process_index}").write_text(str(sum(made)))  # what they print may run into each other
accelerator.end_training()
"""


def test_two_processes_share_the_work_and_know_all(cache: Path, tmp_path: Path) -> None:
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", str(script)]
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "CUDA_VISIBLE_DEVICES": "",
        "ACCELERATE_USE_CPU": "1",
    }
    for made in (75, 0):
        said = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env, cwd=tmp_path)
        assert said.returncode == 0, said.stderr
        assert [(tmp_path / f"made-{rank}").read_text() for rank in (0, 1)] == [str(made)] * 2
    kept = [json.loads(line) for path in cache.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert len(kept) == 150


def test_texts_are_cut_as_trl_cuts_them() -> None:
    row = {"prompt_ids": [1, 2, 3], "chosen_ids": [4, 5], "rejected_ids": [6]}
    assert texts_of(row, None, "keep_start") == (Text((1, 2, 3, 4, 5), 3), Text((1, 2, 3, 6), 3))
    assert texts_of(row, 4, "keep_start") == (Text((1, 2, 3, 4), 3), Text((1, 2, 3, 6), 3))
    assert texts_of(row, 3, "keep_end") == (Text((3, 4, 5), 1), Text((2, 3, 6), 2))
    assert texts_of(row, 1, "keep_end") == (Text((5,), 0), Text((6,), 0))


def test_what_goes_together_hangs_on_the_texts_alone() -> None:
    texts = [(prompt, length) for length in (2, 9, 4) for prompt in "abc"]
    assert in_batches(texts, 4) == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]  # all of a prompt together
    assert in_batches(texts, 2) == [[0, 3], [1, 4], [2, 5], [6, 7], [8]]  # at most so many, the longest first
    assert in_batches([], 2) == []
