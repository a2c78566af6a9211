"""`align sft`: TRL's keys against padding give the same numbers, whatever attention there is."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.align.conftest import WORDS, done, refused, write_recipe, write_rows


@pytest.fixture()
def recipe(tiny: Path, tmp_path: Path) -> Path:
    rows = [
        {
            "prompt": [{"role": "user", "content": f"Say {WORDS[n % 7]}."}],
            "completion": [{"role": "assistant", "content": " ".join(WORDS[n % 5 : n % 5 + 1 + n % 6])}],
        }
        for n in range(12)
    ]
    keys: dict[str, Any] = {"use_peft": True, "lora_r": 4, "lora_dropout": 0.0, "max_steps": 3, "save_strategy": "no"}
    data = str(write_rows(tmp_path / "sft.jsonl", rows))
    batch = {"per_device_train_batch_size": 4, "learning_rate": 1e-2}
    return write_recipe(tmp_path / "sft.yaml", model_name_or_path=str(tiny), dataset_name=data, **keys, **batch)


def losses(recipe: Path, folder: Path, *words: Any) -> list[float]:
    done("sft", recipe, "--output_dir", folder, *words)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def test_without_padding_it_is_the_same(recipe: Path, tmp_path: Path) -> None:
    padded = losses(recipe, tmp_path / "padded")
    free = ("--padding_free", "true", "--max_length", "null")
    for attention in ("sdpa", "eager"):
        assert losses(recipe, tmp_path / attention, *free, "--attn_implementation", attention) == pytest.approx(
            padded, abs=1e-5
        )
    assert len(set(padded)) == 3
    assert "`max_length` is not enforced" in refused(
        "sft", recipe, "--output_dir", tmp_path / "no", "--padding_free", "true"
    )


def test_packed_rows_do_not_see_each_other(recipe: Path, tmp_path: Path) -> None:
    """All rows of the first step's packs, before anything is learnt: the mean over tokens of each row by itself."""
    whole = ("--max_steps", 1, "--per_device_train_batch_size", 12)
    packed = losses(recipe, tmp_path / "packed", *whole, "--packing", "true", "--max_length", 100)
    assert packed == pytest.approx(losses(recipe, tmp_path / "padded", *whole), abs=1e-5)
