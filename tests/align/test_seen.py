"""Whether models were trained on the prompts that they are compared on: by their runs' data, and in the report."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from align.data.load import data_facts
from align.evaluate.config import ModelKeys
from align.evaluate.evidence import Prompt
from align.evaluate.seen import trained_on
from align.report.unseen import prompts_words, seen_note
from tests.align.conftest import pair, write_rows

PROMPTS = [Prompt(str(number), [{"role": "user", "content": f"Say {number}."}]) for number in range(4)]


def run(folder: Path, verb: str, data: Path, parents: tuple[Path, ...] = (), **recipe: Any) -> ModelKeys:
    folder.mkdir()
    manifest = {
        "verb": verb,
        "status": "finished",
        "recipe": {"dataset_name": str(data), **recipe},
        "inputs": {"dataset": data_facts(str(data))},
        "parents": [{"folder": str(parent), "verb": "sft"} for parent in parents],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return ModelKeys(model=str(folder))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pairs whose prompts are two of the evaluation's, one of them with a space behind it, and another one."""
    rows = [pair(text, "yes", "no") for text in ("Say 1. ", "Say 3.", "Say 1. ", "Say 30.")]
    return write_rows(tmp_path / "pairs.jsonl", rows)


def test_prompts_in_training_data_are_found(tmp_path: Path, data: Path) -> None:
    shown = [{"prompt": "Say 0.", "completion": "0"}, {"prompt": "Say 3.", "completion": "3"}]
    models = {
        "sft": run(tmp_path / "sft", "sft", write_rows(tmp_path / "shown.jsonl", shown)),
        "dpo": run(tmp_path / "dpo", "dpo", data, (tmp_path / "sft",)),
        "ppo": run(tmp_path / "ppo", "ppo", write_rows(tmp_path / "new.jsonl", [{"prompt": "Say 4."}])),
        "checkpoint": ModelKeys(model=str(tmp_path / "dpo/checkpoint-1")),
        "hub": ModelKeys(model="org/name"),
        "there": ModelKeys(model="gpt", endpoint="http://localhost:1/v1"),
    }
    (tmp_path / "dpo/checkpoint-1").mkdir()
    challenge = Prompt("c", [{"role": "user", "content": "Say 30."}], "hard")  # not the verdict's
    assert trained_on(models, [*PROMPTS, challenge]) == {
        "sft": {"runs": 1, "seen": 2, "unknown": []},
        "dpo": {"runs": 2, "seen": 3, "unknown": []},
        "ppo": {"runs": 1, "seen": 0, "unknown": []},
        "checkpoint": {"runs": 2, "seen": 3, "unknown": []},
        "hub": {"runs": 0, "seen": 0, "unknown": []},
    }


def test_the_training_split_of_a_preferences_folder_is_looked_at(tmp_path: Path, preferences: Path) -> None:
    models = {verb: run(tmp_path / verb, verb, preferences) for verb in ("sft", "dpo", "kto", "ppo", "grpo")}
    prompts: dict[str, list[Prompt]] = {"train": [], "test": []}
    for line in (preferences / "rankings.jsonl").read_text().splitlines():
        row = json.loads(line)
        prompts[row["split"]].append(Prompt(row["ranking"], row["prompt"]))
    for split, seen in (("train", len(prompts["train"])), ("test", 0)):
        for found in trained_on(models, prompts[split]).values():
            assert found == {"runs": 1, "seen": seen, "unknown": []}


def test_what_can_not_be_looked_at_is_said(tmp_path: Path, data: Path) -> None:
    text = write_rows(tmp_path / "text.jsonl", [{"text": "Say 1. 1"}])
    models = {
        "text": run(tmp_path / "text", "sft", text),
        "hub": run(tmp_path / "hub", "dpo", Path("org/name")),
        "gone": run(tmp_path / "gone", "dpo", data, (tmp_path / "nowhere",)),
        "changed": run(tmp_path / "changed", "dpo", Path(shutil.copy(data, tmp_path / "other.jsonl"))),
    }
    (tmp_path / "other.jsonl").write_text("{")
    data.unlink()
    assert {name: found["unknown"] for name, found in trained_on(models, PROMPTS).items()} == {
        "text": [f"{text} does not say what in it is the prompt"],
        "hub": ["org/name is data of the hub"],
        "gone": [f"{tmp_path / 'nowhere'} is gone", f"{data} is gone"],
        "changed": [f"{tmp_path / 'other.jsonl'} has changed since"],
    }


def test_the_report_claims_no_more_than_was_looked_at() -> None:
    def words(**models: tuple[int, int, list[str]]) -> str:
        found = {name: dict(zip(("runs", "seen", "unknown"), facts, strict=True)) for name, facts in models.items()}
        return prompts_words({"prompts": 40, "trained_on": found})

    assert prompts_words({"prompts": 40}) == words(base=(0, 0, [])) == "40 prompts"
    assert words(base=(0, 0, []), dpo=(2, 0, [])).startswith("40 held-out prompts, none of which is in the data")
    assert "some of that could not be looked at" in words(base=(0, 0, []), dpo=(2, 0, ["x is gone"]))
    assert words(base=(1, 3, []), dpo=(2, 0, ["x"])) == "40 prompts, of which 3 are in data that a model was trained on"
    report = {"prompts": 40, "trained_on": {"dpo": {"runs": 1, "seen": 3, "unknown": []}, "base": {"seen": 0}}}
    assert seen_note("dpo", report).startswith("3 of the 40 prompts are in the data that it was trained on")
    assert seen_note("base", report) == seen_note("other", report) == seen_note("dpo", {}) == ""
