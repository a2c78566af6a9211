"""What evaluation computes, by hand and by the plainest code that gives the same number."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from align.data.packs import PairRow, pack_pairs
from align.evaluate.held_out import HeldOut, agreement
from align.evaluate.verdicts import prefer
from align.models.load import find_model, load_causal_lm, load_tokenizer
from tests.align.conftest import TRAIN, done, write_recipe

TEMPERATURE = 0.8


def test_preferences_from_scores() -> None:
    assert prefer([2.0, 1.0, 0.5, -1.0, None, 1.0], [1.0, 2.0, 0.5, -2.0, 1.0, None]) == [
        1.0,
        0.0,
        0.5,
        1.0,
        None,
        None,
    ]


def test_reward_model_against_the_truth_by_hand() -> None:
    """Four held-out pairs. The reward model orders 3 of 4 as the raters did, and one pair is a draw to the truth.

    Of the three that the truth decides, the raters are right in the first and third and wrong in the second; the reward
    model sides with the raters in all three, so by the truth it is right in the first and third only.
    """
    held_out = HeldOut(
        *("reward", "runs/reward", [], [], None),
        {
            "reward": ([2.0, 2.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0]),
            "truth": ([1.0, 0.0, 5.0, 3.0], [0.0, 1.0, 4.0, 3.0]),
            "length": ([9.0, 5.0, 5.0, 1.0], [3.0, 5.0, 7.0, 8.0]),
        },
    )
    result = agreement(held_out, [[1.0, 0.1], [2.0, 0.3], [3.0, 0.2]])
    assert result["test"]["accuracy"] == 0.75
    assert result["longer_wins"]["accuracy"] == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert result["truth"]["pairs"]["accuracy"] == pytest.approx(2 / 3)
    assert result["truth"]["raters"]["accuracy"] == pytest.approx(2 / 3)
    assert result["truth"]["correlation"] == pytest.approx(0.5)  # ranks 1 2 3 and 1 3 2: 1 - 6 * 2 / (3 * 8)


@pytest.fixture(scope="module")
def evaluation(tiny: Path, pairs_file: Path, reward_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, its copy under another name, and a DPO run that has moved away from it."""
    home = tmp_path_factory.mktemp("evaluate")
    keys: dict[str, Any] = {**TRAIN, "max_steps": 6, "learning_rate": 5e-3, "dataset_name": str(pairs_file)}
    done("dpo", write_recipe(home / "dpo.yaml", **keys, model_name_or_path=str(tiny)), "--output_dir", home / "dpo")
    recipe = write_recipe(
        home / "evaluate.yaml",
        models={"base": str(tiny), "copy": str(tiny), "dpo": str(home / "dpo")},
        judges={"reward": str(reward_run)},
        cache_dir=None,
        dataset_name=str(pairs_file),
        output_dir=str(home / "run"),
        max_new_tokens=8,
        temperature=TEMPERATURE,
        num_prompts=10,
        batch_size=4,
    )
    done("evaluate", recipe)
    return home


def metrics_of(evaluation: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((evaluation / "run" / "metrics.json").read_text())
    return metrics


def test_prompts_that_a_model_was_trained_on_are_said(evaluation: Path) -> None:
    none = {"runs": 0, "seen": 0, "unknown": []}
    assert metrics_of(evaluation)["trained_on"] == {
        "base": none,
        "copy": none,
        "dpo": {"runs": 1, "seen": 10, "unknown": []},
    }
    page = (evaluation / "run/report.html").read_text()
    assert "10 prompts, of which 10 are in data that a model was trained on" in page
    assert "10 of the 10 prompts are in the data that it was trained on" in page
    assert "10 of the 10 prompts are" in (evaluation / "run/model-card-dpo.md").read_text()


def responses_of(evaluation: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (evaluation / "run" / f"responses-{name}.jsonl").read_text().splitlines()]


def logprob(model: Any, prompt: list[int], response: list[int]) -> float:
    """log p(response | prompt) at the temperature: one text at a time, no padding, log_softmax over everything."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    table = (logits / TEMPERATURE).log_softmax(-1)
    return float(sum(table[place, token] for place, token in enumerate(response)))


def test_kl_to_the_base(evaluation: Path, tiny: Path) -> None:
    models = metrics_of(evaluation)["models"]
    assert models["base"]["kl"] is None
    assert models["copy"]["kl"]["mean"] == pytest.approx(0.0, abs=1e-4)
    base = load_causal_lm(find_model(str(tiny))).eval()
    dpo = load_causal_lm(find_model(str(evaluation / "dpo"))).eval()
    values = []
    for row in responses_of(evaluation, "dpo"):
        own = logprob(dpo, row["prompt_ids"], row["ids"])
        assert row["logprob"] == pytest.approx(own, abs=1e-3)
        values.append(own - logprob(base, row["prompt_ids"], row["ids"]))
    assert models["dpo"]["kl"]["mean"] == pytest.approx(sum(values) / len(values), abs=1e-3)
    assert abs(models["dpo"]["kl"]["mean"]) > 0.01


def test_the_copy_says_what_the_base_says(evaluation: Path) -> None:
    assert responses_of(evaluation, "copy") == responses_of(evaluation, "base")
    models = metrics_of(evaluation)["models"]
    assert models["copy"]["judges"]["reward"]["win_rate"] == 0.5
    assert models["copy"]["length"] == models["base"]["length"]


def test_a_response_is_its_tokens_less_the_special_ones(evaluation: Path, tiny: Path) -> None:
    tokenizer = load_tokenizer(find_model(str(tiny)))
    for row in responses_of(evaluation, "dpo"):
        assert tokenizer.decode(row["ids"], skip_special_tokens=True).strip() == row["text"]
        assert row["ended"] == (row["ids"][-1] == tokenizer.eos_token_id)
        assert tokenizer.eos_token_id not in row["ids"][:-1]
        assert len(row["ids"]) <= 8


def test_a_model_with_another_vocabulary_has_no_kl(
    tiny: Path, reward_run: Path, pairs_file: Path, tmp_path: Path
) -> None:
    """Its tokens mean other words, or none, to the base."""
    other = tmp_path / "other"
    tokenizer = load_tokenizer(find_model(str(tiny)))
    tokenizer.add_tokens(["<new>"])
    model = load_causal_lm(find_model(str(tiny)))
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(other)
    tokenizer.save_pretrained(other)
    recipe = write_recipe(
        tmp_path / "e.yaml",
        models={"base": str(tiny), "other": str(other)},
        judges={"reward": str(reward_run)},
        cache_dir=None,
        dataset_name=str(pairs_file),
        output_dir=str(tmp_path / "run"),
        max_new_tokens=4,
        num_prompts=3,
    )
    done("evaluate", recipe)
    models = json.loads((tmp_path / "run" / "metrics.json").read_text())["models"]
    assert models["other"]["kl"] is None
    assert models["other"]["judges"]["reward"]["n"] == 3


def test_a_pack_needs_room_for_a_pair() -> None:
    with pytest.raises(ValueError, match="room for two"):
        pack_pairs([PairRow([1], [2], 1.0, 1.0)], 1, 0)
    assert math.isclose(pack_pairs([PairRow([1], [2], 0.7, 1.0)], 2, 0)[0].preference[0], 0.7)
