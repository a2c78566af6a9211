"""Tasks of lm-evaluation-harness, by its own API, on a task of our own; skipped where the harness is not installed."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from align.evaluate.harness import ask_harness, open_harness, read_results
from align.models.load import find_model, load_causal_lm, load_tokenizer
from align.models.logprobs import total_logprobs
from preferences.errors import BadInput
from tests.align.conftest import WORDS, write_rows

INSTALLED = importlib.util.find_spec("lm_eval") is not None
needs_harness = pytest.mark.skipif(not INSTALLED, reason="lm-evaluation-harness is not installed (pip install lm-eval)")
CHOICES = [" red", " fox tea", " soup"]


def arguments(*tasks: str) -> Any:
    return SimpleNamespace(harness_tasks=list(tasks))


@pytest.fixture()
def task(tmp_path: Path) -> Path:
    """A task of multiple choice, in a YAML file that names local data."""
    rows = [{"asked": f"Say {word}.", "right": number % 3} for number, word in enumerate(WORDS)]
    data = write_rows(tmp_path / "colours.jsonl", rows)
    config = {
        "task": "colours",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{asked}}",
        "doc_to_choice": CHOICES,
        "doc_to_target": "right",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    path = tmp_path / "colours.yaml"
    path.write_text(json.dumps(config))
    return path


def test_no_tasks_no_harness() -> None:
    assert open_harness(arguments(), "r.yaml") is None


@pytest.mark.skipif(INSTALLED, reason="lm-evaluation-harness is installed")
def test_the_harness_is_missing() -> None:
    with pytest.raises(BadInput, match=r"^r.yaml: key `harness_tasks`: .* is not installed; `pip install lm-eval`, or"):
        open_harness(arguments("arc_easy"), "r.yaml")


def test_results_as_the_harness_gives_them() -> None:
    """The shape of simple_evaluate's results in lm-eval 0.4.13."""
    given = {
        "results": {
            "gsm": {
                "alias": "gsm",
                "exact_match,strict-match": 0.25,
                "exact_match_stderr,strict-match": 0.05,
                "word_perplexity,none": 12.5,
                "word_perplexity_stderr,none": "N/A",
            }
        },
        "higher_is_better": {"gsm": {"exact_match": True, "word_perplexity": False}},
        "n-samples": {"gsm": {"original": 80, "effective": 75}},
    }
    assert read_results(given) == {
        "gsm": {
            "exact_match (strict-match)": {"value": 0.25, "standard_error": 0.05, "n": 75, "better": "higher"},
            "word_perplexity": {"value": 12.5, "standard_error": None, "n": 75, "better": "lower"},
        }
    }


@needs_harness
def test_a_task_of_our_own(tiny: Path, task: Path, tmp_path: Path) -> None:
    """Accuracy is how often the right choice is the likeliest, by the plainest code that says so."""
    opened = open_harness(arguments(str(task)), "r.yaml")
    assert opened is not None
    models = {
        "base": SimpleNamespace(kind="local", source=find_model(str(tiny))),
        "far": SimpleNamespace(kind="endpoint"),
    }
    (tmp_path / "run").mkdir()
    found = ask_harness(opened, models, 4, tmp_path / "run")

    tokenizer, model = load_tokenizer(find_model(str(tiny))), load_causal_lm(find_model(str(tiny))).eval()
    rights = []
    for number, word in enumerate(WORDS):
        asked = tokenizer(f"Say {word}.")["input_ids"]
        totals = [total_logprobs(model, [asked], [tokenizer(choice)["input_ids"]], 1.0)[0] for choice in CHOICES]
        rights.append(totals.index(max(totals)) == number % 3)
    share = sum(rights) / len(rights)
    assert set(found["colours"]["acc"]) == {"base"}
    cell = found["colours"]["acc"]["base"]
    assert cell["value"] == pytest.approx(share) and cell["n"] == len(WORDS) and cell["better"] == "higher"
    assert 0 < share < 1, "a model that is always right or wrong would pass, too"

    models["base"].source = None  # what is kept is not asked again
    assert ask_harness(opened, models, 4, tmp_path / "run") == found


@needs_harness
def test_tasks_that_there_are_not(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has no task 'arc_esy'; did you mean arc_easy"):
        open_harness(arguments("arc_esy"), "r.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text('{"task": "broken", "dataset_path": "json", "dataset_kwargs": {"data_files": "nowhere.jsonl"}}')
    with pytest.raises(BadInput, match=r"task '.*broken\.yaml' can't be loaded"):
        open_harness(arguments(str(broken)), "r.yaml")
