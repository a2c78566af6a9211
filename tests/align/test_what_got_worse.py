"""`align evaluate` as a whole: what metrics.json says of a copy of the base, and of a model that is cut off."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.align.conftest import WORDS, done, refused, write_recipe, write_rows

LONGER = "def longer(prompt, response):\n    return len(response)\n"


@pytest.fixture(scope="module")
def home(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of the base, its copy, and the base with one token to say what it has to say."""
    home = tmp_path_factory.mktemp("worse")
    prompts = [
        {"prompt": f"Say {WORDS[n % 12]}, {n}.", "tags": ["odd"] * (n % 2) + ["few"] * (n < 5)} for n in range(48)
    ]
    write_rows(home / "prompts.jsonl", [{**row, "reference": "red fox"} for row in prompts])
    write_rows(home / "hard.jsonl", [{"prompt": f"Say {WORDS[n % 12]}! {n}"} for n in range(24)])
    write_rows(home / "texts.jsonl", [{"text": " ".join(WORDS[n : n + 4])} for n in range(8)])
    (home / "longer.py").write_text(LONGER)
    recipe = write_recipe(
        home / "evaluate.yaml",
        models={"base": str(tiny), "copy": str(tiny), "cut": {"model": str(tiny), "max_new_tokens": 1}},
        judges={"longer": f"{home / 'longer.py'}:longer"},
        dataset_name=str(home / "prompts.jsonl"),
        challenge_sets={"hard": str(home / "hard.jsonl")},
        perplexity_on=str(home / "texts.jsonl"),
        output_dir=str(home / "run"),
        cache_dir=str(home / "cache"),
        max_new_tokens=12,
    )
    done("evaluate", recipe)
    return home


@pytest.fixture()
def metrics(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / "run" / "metrics.json").read_text())
    return found


def test_nothing_got_worse_in_a_copy(metrics: dict[str, Any]) -> None:
    copy, base = (metrics["models"][name]["measures"] for name in ("copy", "base"))
    assert {"length", "finished", "repetition", "chrf", "bleu", "nats_per_character", "perplexity"} <= set(copy)
    for name, fields in copy.items():
        assert fields["mean"] == base[name]["mean"] and fields["difference"]["mean"] == 0.0
        assert fields["difference"].get("p_value") in (None, 1.0)
    assert not [row for rows in ("worse", "perhaps") for row in metrics["worse"][rows] if row["model"] == "copy"]
    assert all(pair["longer"]["win_rate"] == 0.5 for pair in metrics["models"]["copy"]["tags"].values())
    assert metrics["models"]["base"]["tags"] == {}


def test_a_model_that_is_cut_off(metrics: dict[str, Any]) -> None:
    """It is shorter, so it loses by the judge wherever it is asked; and its responses don't end."""
    found = [(row["kind"], row["name"]) for row in metrics["worse"]["worse"] if row["model"] == "cut"]
    assert found[:3] == [("verdict", "cut"), ("challenge set", "hard"), ("slice", "odd")]
    assert ("measure", "finished") in found and ("measure on a challenge set", "finished on hard") in found
    assert ("measure", "perplexity") not in found, "the weights are the same"
    assert ("slice", "few") in [(row["kind"], row["name"]) for row in metrics["worse"]["too_few"]]
    assert metrics["challenge_sets"]["hard"]["prompts"] == 24
    assert {gap["group"] for gap in metrics["fairness"]["prompts"]} == {"odd", "few"}
    assert metrics["fairness"]["raters"] == []
    assert metrics["harness"] is None


def test_the_gate_reads_the_list(home: Path) -> None:
    assert "2 of 2" in done("gate", home / "run", "--rule", "copy.worse < 1", "--rule", "cut.worse > 3").out


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"perplexity_on": "nowhere.jsonl"}, "nowhere.jsonl: no such file"),
        ({"challenge_sets": {"hard": "nowhere.jsonl"}}, "nowhere.jsonl: no such file"),
        ({"harness_tasks": ["no_such_task"]}, "key `harness_tasks`: "),
    ],
)
def test_what_is_missing_is_said_before_anything_is_written(
    keys: dict[str, Any], said: str, evaluate_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    assert said in refused("evaluate", evaluate_recipe(**keys))
    assert not any((tmp_path / "home").iterdir())
