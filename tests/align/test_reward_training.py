"""`align reward` trains on pairs, ties and whole rankings: its loss beside TRL's, by hand, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp

from align.data.load import load_rankings, mean_one, said_of
from preferences.contract import ExportedAnswer, Pair, PreferencesFolder, Ranking, write_preferences
from tests.align.conftest import TRAIN, done, pair, refused, write_recipe, write_rows

TEXTS = ["red", "a cat and a dog", "sun sun", "tea"]
PROMPT = [{"role": "user", "content": "Say something."}]


class Caught(Exception):
    pass


def trainer_of(tmp_path: Path, tiny: Path, data: Path, **keys: Any) -> Any:
    """The trainer that `align reward` would train with."""
    from align.train import reward

    def catch(trainer: Any, job: Any, *args: Any, **facts: Any) -> None:
        raise Caught(trainer)

    recipe = {"model_name_or_path": str(tiny), "dataset_name": str(data), "output_dir": str(tmp_path / "out")}
    with mock.patch.object(reward, "train", catch), pytest.raises(Caught) as caught:
        reward.run_reward({**recipe, **keys}, "reward.yaml", overwrite=True)
    return caught.value.args[0]


def losses_of(trainer: Any) -> list[Any]:
    """The loss of each pack, in evaluation mode."""
    trainer.model.eval()
    return [trainer.compute_loss(trainer.model, trainer.data_collator([pack])) for pack in trainer.train_dataset]


def scores_of(trainer: Any, texts: list[list[int]]) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        return np.array([trainer.model(input_ids=torch.tensor([text])).logits.item() for text in texts])


@pytest.mark.parametrize("margins", [False, True])
def test_a_pack_of_certain_pairs_is_trls_batch(margins: bool, tiny: Path, tmp_path: Path) -> None:
    """Loss and gradients, with centring, and with TRL's column `margin`; three of its pairs are four responses here."""
    from trl import RewardConfig, RewardTrainer

    rows = [pair("Say x.", TEXTS[0], TEXTS[1]), pair("Say x.", TEXTS[0], TEXTS[2]), pair("Say x.", TEXTS[3], TEXTS[1])]
    if margins:
        rows = [{**row, "margin": margin} for row, margin in zip(rows, (0.0, 1.5, -0.5), strict=True)]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    keys = {"center_rewards_coefficient": 0.3, "per_device_train_batch_size": 3}
    ours = trainer_of(tmp_path, tiny, data, **keys)
    (pack,) = ours.train_dataset
    assert len(pack["texts"]) == 4
    (loss,) = losses_of(ours)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in ours.model.named_parameters()}
    ours.model.zero_grad()

    from datasets import Dataset

    args = RewardConfig(str(tmp_path / "trl"), use_cpu=True, bf16=False, **keys)
    trls = RewardTrainer(
        ours.model, args, train_dataset=Dataset.from_list(rows), processing_class=ours.processing_class
    )
    expected = trls.compute_loss(trls.model, trls.data_collator(list(trls.train_dataset)))
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    for name, parameter in trls.model.named_parameters():
        assert (gradients[name] - parameter.grad).abs().max() <= 1e-6 * max(1, gradients[name].abs().max()), name


def test_what_pairs_say_by_hand(tiny: Path, tmp_path: Path) -> None:
    rows = [
        {**pair("Say x.", TEXTS[0], TEXTS[1]), "preference": 0.8, "weight": 3.0, "strength": 2.0},
        {**pair("Say y.", TEXTS[2], TEXTS[3]), "preference": 0.5, "weight": 1.0, "strength": None},
    ]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    trainer = trainer_of(tmp_path, tiny, data, strength_margin=0.25, label_smoothing=0.1)
    (pack,) = trainer.train_dataset
    scores = scores_of(trainer, pack["texts"])
    d = {weight: scores[a] - scores[b] for (a, b), weight in zip(pack["pairs"], pack["weight"], strict=True)}
    p = 0.9 * 0.8 + 0.1 * 0.2
    first = -p * np.log(expit(d[1.5] - 0.5)) - (1 - p) * np.log(expit(-d[1.5] - 0.5))
    second = -0.5 * np.log(expit(d[0.5])) - 0.5 * np.log(expit(-d[0.5]))
    (loss,) = losses_of(trainer)
    assert loss.item() == pytest.approx((1.5 * first + 0.5 * second) / 2, abs=1e-5)
    means = trainer.means.take(trainer)
    assert means["eval_accuracy"] == float(d[1.5] > 0)  # the tie is nobody's
    assert means["eval_margin"] == pytest.approx(d[1.5], abs=1e-5)
    assert means["eval_mean_reward"] == pytest.approx(scores.mean(), abs=1e-5)


def test_weights_count_in_packs_of_one(tiny: Path, tmp_path: Path) -> None:
    rows = [pair("Say x.", TEXTS[0], TEXTS[1]), pair("Say y.", TEXTS[2], TEXTS[3])]
    weighted = [{**row, "weight": weight} for row, weight in zip(rows, (1.0, 3.0), strict=True)]
    each = []
    for some in (rows, weighted):
        data = write_rows(tmp_path / "rows.jsonl", some)
        each.append(
            [loss.item() for loss in losses_of(trainer_of(tmp_path, tiny, data, per_device_train_batch_size=1))]
        )
    assert sorted(weighted / plain for plain, weighted in zip(*each, strict=True)) == pytest.approx([0.5, 1.5])


def test_ties_of_a_folder_train(tiny: Path, preferences: Path, tmp_path: Path) -> None:
    keys = {**TRAIN, "model_name_or_path": str(tiny), "dataset_name": str(preferences)}
    done("reward", write_recipe(tmp_path / "r.yaml", **keys), "--output_dir", tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert (manifest["pairs"], manifest["ties"], manifest["pairs_dropped"]) == (19, 1, 0)


# --- whole rankings


def answer(rater: str, ranks: list[int], strength: int | None = None) -> ExportedAnswer:
    more: dict[str, Any] = {"ratings": None, "flags": [], "edited": None, "shown": None, "seconds": None}
    return ExportedAnswer(rater=rater, ranks=ranks, strength=strength, guideline=None, **more)


def turn(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.fixture()
def ranked(tmp_path: Path) -> Callable[..., Path]:
    """Makes a preferences folder of one item with four responses and the given answers, and an edit of its second."""

    def make(answers: list[ExportedAnswer], texts: list[str] = TEXTS, decided: bool = False) -> Path:
        facts: dict[str, Any] = {"ranking": "r1", "group": "g1", "prompt": PROMPT, "tags": []}
        row = Ranking(
            **facts, split="train", responses=[turn(t) for t in texts], models=None, ranks=[*range(1, len(texts) + 1)],
            decided=decided, weight=0.5, answers=answers,
        )  # fmt: skip
        said: dict[str, Any] = {"preference": 1.0, "strength": None, "weight": 0.5, "raters": ["p1"], "models": None}
        edit = Pair(**facts, **said, chosen=turn("a dog"), rejected=turn(texts[1]), source="edited")
        whole = Pair(**facts, **said, chosen=turn(texts[0]), rejected=turn(texts[1]))
        manifest = {"project": "tiny", "raters": {"p1": 0.5, "p2": 1.0}}
        write_preferences(tmp_path / "ranked", PreferencesFolder({"train": [whole, edit]}, [], [row], [], manifest))
        return tmp_path / "ranked"

    return make


LUCE = {"loss_type": "plackett_luce", "per_device_train_batch_size": 3}


def test_every_raters_ranking_by_hand(tiny: Path, ranked: Callable[..., Path], tmp_path: Path) -> None:
    data = ranked([answer("p1", [1, 2, 3, 4], 2), answer("p2", [2, 1, 1, 3], 0)])
    trainer = trainer_of(tmp_path, tiny, data, **LUCE, strength_margin=0.25)
    (pack,) = trainer.train_dataset
    assert len(pack["texts"]) == 5  # four responses and the edit, each once, for two raters
    assert len(pack["rankings"]) == 3
    texts = [tuple(text) for text in pack["texts"]]
    scores = scores_of(trainer, pack["texts"])
    s = [scores[place] for place in pack["rankings"][0]]
    first = sum(logsumexp([s[0] - 0.5, *s[1:]][i:]) - [s[0] - 0.5, *s[1:]][i] for i in range(4))
    orders = [(1, 2, 0, 3), (2, 1, 0, 3)]
    second = np.mean([sum(logsumexp([s[n] for n in o[i:]]) - s[o[i]] for i in range(4)) for o in orders])
    edit, before = (scores[place] for place in pack["rankings"][2])
    assert texts[pack["rankings"][2][1]] == texts[pack["rankings"][0][1]]
    third = -np.log(expit(edit - before))
    (loss,) = losses_of(trainer)
    expected = (0.5 * first + 1.0 * second + 0.5 * third) / 2  # weights over their mean of 2/3, mean of three
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    means = trainer.means.take(trainer)
    ordered = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)], [(1, 0), (2, 0), (1, 3), (2, 3), (0, 3)]
    right = [s[a] > s[b] for pairs in ordered for a, b in pairs] + [edit > before]
    assert means["eval_accuracy"] == pytest.approx(np.mean(right))


def test_a_decision_stands_in_place_of_the_answers(tiny: Path, ranked: Callable[..., Path], tmp_path: Path) -> None:
    said = [answer("p1", [4, 3, 2, 1])]
    for answers, decided in ((said, True), ([], False)):
        (pack,) = trainer_of(tmp_path, tiny, ranked(answers, decided=decided), **LUCE).train_dataset
        assert pack["ranks"] == [[1, 2, 3, 4], [1, 2]]
    (pack,) = trainer_of(tmp_path, tiny, ranked(said), **LUCE).train_dataset
    assert pack["ranks"] == [[4, 3, 2, 1], [1, 2]]


def test_smoothed_rankings(tiny: Path, ranked: Callable[..., Path], tmp_path: Path) -> None:
    """For two responses it is the smoothing of pairs."""
    data = ranked([answer("p2", [1, 2])], texts=TEXTS[:2])
    (loss,) = losses_of(trainer_of(tmp_path, tiny, data, **LUCE, label_smoothing=0.1))
    trainer = trainer_of(tmp_path, tiny, data, **LUCE)
    (pack,) = trainer.train_dataset
    scores = scores_of(trainer, pack["texts"])
    d = np.array([scores[a] - scores[b] for a, b in pack["rankings"]])
    each = -0.9 * np.log(expit(d)) - 0.1 * np.log(expit(-d))
    assert loss.item() == pytest.approx(float(np.average(each, weights=[1.0, 0.5])), abs=1e-5)


def test_a_run_on_rankings(tiny: Path, ranked: Callable[..., Path], tmp_path: Path) -> None:
    data = ranked([answer("p1", [1, 2, 3, 4]), answer("p2", [1, 2, 3, 4])])
    keys = {**TRAIN, "model_name_or_path": str(tiny), "dataset_name": str(data), "max_steps": 40, "learning_rate": 1e-2}
    recipe = write_recipe(tmp_path / "r.yaml", **keys, loss_type="plackett_luce", center_rewards_coefficient=0.01)
    done("reward", recipe, "--output_dir", tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.5 * losses[0]
    assert rows[-2]["accuracy"] == 1.0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert (manifest["rankings"], manifest["items"], manifest["packs"]) == (3, 1, 1)
    assert manifest["scores"]["std"] > 0


def test_rankings_that_do_not_fit(ranked: Callable[..., Path], recipe: Callable[..., Path], pairs_file: Path) -> None:
    luce: dict[str, Any] = {"loss_type": "plackett_luce"}
    assert "only `annotate export` writes whole rankings" in refused("reward", recipe(**luce))
    data = ranked([answer("p1", [1, 2, 3, 4])])
    said = refused("reward", recipe(**luce, dataset_name=str(data), per_device_train_batch_size=1))
    assert "ranking r1 has 4 responses" in said
    assert "to 2 or more" in said
    many = ranked([answer("p1", [1] * 13)], texts=[f"tea {n}" for n in range(13)])
    room = {"dataset_name": str(many), "per_device_train_batch_size": 8}
    assert "13 responses tied on one rank, and" in refused("reward", recipe(**luce, **room))
    in_order = ranked([answer("p1", [*range(1, 14)])], texts=[f"tea {n}" for n in range(13)])
    room["dataset_name"] = str(in_order)
    said = refused("reward", recipe(**luce, **room, label_smoothing=0.1))
    assert "13 responses tied on one rank (label_smoothing takes all to be), and" in said
    said = refused("reward", recipe(**luce, dataset_name=str(data), dataset_train_split="validation"))
    assert "nothing in its validation split" in said


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"loss_type": "hinge"}, "loss_type"),
        ({"label_smoothing": 0.5}, "`label_smoothing`: 0.5 is not in [0, 0.5)"),
        ({"strength_margin": -0.1}, "`strength_margin`: -0.1 is not a number of 0 or more"),
    ],
)
def test_keys_that_are_wrong(keys: dict[str, Any], said: str, recipe: Callable[..., Path]) -> None:
    assert said in refused("reward", recipe(**keys))


@pytest.mark.parametrize("margin", ["much", float("nan"), float("inf")])
def test_a_margin_that_is_wrong(margin: Any, recipe: Callable[..., Path], tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [{**pair("Say x.", TEXTS[0], TEXTS[1]), "margin": margin}])
    assert f"row 1: margin {margin!r}: it is a number" in refused("reward", recipe(dataset_name=str(data)))


def test_the_unit_of_weights_does_not_matter() -> None:
    for unit in (1.0, 1e-300, 1.7e308):
        assert mean_one([unit, unit / 2, unit / 2, 0.0], "data") == pytest.approx([2.0, 1.0, 1.0, 0.0])


def test_a_row_that_does_not_say_is_certain() -> None:
    """In a table where other rows say more, its columns are null."""
    assert said_of({"preference": None, "weight": None, "strength": None}, "row 1") == (1.0, 1.0, 0.0)


def test_the_reliability_of_raters_comes_along(ranked: Callable[..., Path]) -> None:
    rows, trust = load_rankings(str(ranked([answer("p1", [1, 2, 3, 4])])), "train")
    assert trust == {"p1": 0.5, "p2": 1.0}
    assert rows[0]["answers"][0]["ranks"] == [1, 2, 3, 4]
