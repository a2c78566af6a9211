"""`align kto`: what becomes of pairs, what all-bad does, and a run whose loss is TRL's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.data.unpaired import load_unpaired, unpaired
from preferences.contract import ExportedAnswer, Pair, PreferencesFolder, Ranking, write_preferences
from tests.align.conftest import TRAIN, done, pair, refused, write_recipe, write_rows


def labels(rows: list[dict[str, Any]]) -> dict[str, bool]:
    return {row["completion"][-1]["content"]: row["label"] for row in rows}


def test_each_response_once_by_what_it_wins() -> None:
    """a > b > c by hand: a wins 1 + 0.6, b loses 1 and wins 0.2, c loses both; d is tied."""
    rows = [
        {**pair("Say x.", "a", "b"), "preference": 1.0},
        {**pair("Say x.", "a", "c"), "preference": 0.8},
        {**pair("Say x.", "b", "c"), "preference": 0.6},
        {**pair("Say y.", "a", "d"), "preference": 0.5},
    ]
    found = unpaired(rows)
    assert len(found) == 3
    assert labels(found) == {"a": True, "b": False, "c": False}
    rows[0]["weight"] = 0.1  # 0.1 lost now, and 0.2 won
    assert labels(unpaired(rows)) == {"a": True, "b": True, "c": False}


def test_a_draw_is_a_draw_whatever_floats_make_of_it() -> None:
    """Wins by 0.1 and 0.2, and loses by 0.3, in any unit."""
    for unit in (1.0, 1e-20):
        rows = [pair("Say x.", "a", other) | {"weight": weight * unit} for other, weight in (("b", 0.1), ("c", 0.2))]
        rows.append(pair("Say x.", "d", "a") | {"weight": 0.3 * unit})
        assert labels(unpaired(rows)) == {"b": False, "c": False, "d": True}


@pytest.mark.parametrize("label", [True, False])
def test_only_good_or_only_bad_is_said(label: bool, tiny: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"Say {n}.", "completion": "tea", "label": label} for n in range(8)]
    keys = {**TRAIN, "model_name_or_path": str(tiny), "output_dir": str(tmp_path / "out")}
    recipe = write_recipe(tmp_path / "kto.yaml", **keys, dataset_name=str(write_rows(tmp_path / "rows.jsonl", rows)))
    said = done("kto", recipe).err
    assert f"all are {'good' if label else 'bad'}: KTO learns from what sets good ones apart from bad ones" in said


def test_bad_responses_are_not_imitated(recipe: Callable[..., Path], tmp_path: Path) -> None:
    rows = [{"prompt": f"Say {n}.", "completion": "tea", "label": n > 0} for n in range(8)]
    said = refused("sft", recipe(dataset_name=str(write_rows(tmp_path / "rows.jsonl", rows))))
    assert "1 of 8 rows are labelled bad (`label`: false)" in said


def test_a_row_that_is_wrong(recipe: Callable[..., Path], tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [pair("Say x.", "a", "b") | {"weight": -1}])
    assert f"{data}, row 1: weight -1: it is a number" in refused("kto", recipe(dataset_name=str(data)))


def test_an_edit_is_good_and_says_nothing_of_what_it_was() -> None:
    rows = [
        {**pair("Say x.", "a", "b"), "preference": 0.7, "source": "ranked"},
        {**pair("Say x.", "a!", "a"), "preference": 1.0, "source": "edited"},
    ]
    assert labels(unpaired(rows)) == {"a": True, "b": False, "a!": True}


def test_where_all_are_bad_none_is_good() -> None:
    (row,) = [pair("Say x.", "a", "b")]
    found = unpaired([row, pair("Say y.", "c", "d")], [(row["prompt"], [row["chosen"], row["rejected"]])])
    assert labels(found) == {"a": False, "b": False, "c": True, "d": False}


def answer(rater: str, flags: list[str]) -> ExportedAnswer:
    more: dict[str, Any] = {"ratings": None, "edited": None, "shown": None, "seconds": None, "guideline": None}
    return ExportedAnswer(rater=rater, ranks=[1, 2], strength=None, flags=flags, **more)


@pytest.mark.parametrize(("flagged", "good"), [(0, 1), (1, 0), (2, 0)])
def test_all_bad_of_a_folder(flagged: int, good: int, tmp_path: Path) -> None:
    """Half of the answers are enough, as in sft.jsonl."""
    facts: dict[str, Any] = {"ranking": "r1", "group": "g1", "tags": [], "models": None, "weight": 1.0}
    row = pair("Say x.", "a", "b")
    answers = [answer(f"p{n}", ["all-bad"] if n < flagged else []) for n in range(2)]
    responses = [row["chosen"], row["rejected"]]
    ranking = Ranking(**facts, split="train", prompt=row["prompt"], responses=responses, ranks=[1, 2], answers=answers)
    pairs = {"train": [Pair(**facts, **row, preference=0.9, strength=None, raters=["p0", "p1"])]}
    write_preferences(tmp_path / "f", PreferencesFolder(pairs, [], [ranking], [], {"project": "tiny"}))
    rows = load_unpaired(str(tmp_path / "f"), "train", None, seed=0)
    assert sum(rows["label"]) == good
    assert len(rows) == 2


@pytest.mark.parametrize("peft", [True, False])
def test_a_run(peft: bool, tiny: Path, preferences: Path, tmp_path: Path) -> None:
    keys = {**TRAIN, "use_peft": peft, "model_name_or_path": str(tiny), "dataset_name": str(preferences)}
    recipe = write_recipe(tmp_path / "kto.yaml", **keys, per_device_train_batch_size=6)
    said = done("kto", recipe, "--output_dir", tmp_path / "run")
    assert "18 good and 18 bad responses" in said.err
    assert "KL a response 0.000" in said.err
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert (manifest["verb"], manifest["rows"], manifest["good"], manifest["rows_cut"]) == ("kto", 36, 18, 0)
    (row, *_) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    # eq. 7 and 8 of arXiv 2402.01306, before the first step: every reward and the divergence are 0, 1 - s(0) each
    assert row["loss"] == pytest.approx(0.5, abs=1e-6)
    assert row["kl"] == pytest.approx(0.0, abs=1e-6)
    assert "is advised" not in said.err
    more = ("--model_name_or_path", tmp_path / "run", "--undesirable_weight", "2.0")
    said = done("kto", recipe, "--output_dir", tmp_path / "more", *more)
    assert "count 0.50 times as much as the bad ones" in said.err
    assert "desirable_weight: 2.00 makes it 1" in said.err


def test_data_of_other_shapes(recipe: Callable[..., Path], tmp_path: Path, pairs_file: Path) -> None:
    turns = pair("Say x.", "a", "b")
    rows = [
        {"prompt": turns["prompt"], "completion": turns[side], "label": side == "chosen"}
        for side in turns
        if side != "prompt"
    ]
    data = write_rows(tmp_path / "labelled.jsonl", rows)
    found = load_unpaired(str(data), "train", None, seed=0)
    assert labels(list(found)) == {"a": True, "b": False}
    whole = [{side: turns["prompt"] + turns[side] for side in ("chosen", "rejected")}]
    found = load_unpaired(str(write_rows(tmp_path / "implicit.jsonl", whole)), "train", None, seed=0)
    assert labels(list(found)) == {"a": True, "b": False}
    assert found[0]["prompt"] == turns["prompt"]
    rows = list(load_unpaired(str(pairs_file), "train", None, seed=0))
    assert rows != list(load_unpaired(str(pairs_file), "train", None, seed=1))
    assert rows == list(load_unpaired(str(pairs_file), "train", None, seed=0))

    wrong = write_rows(tmp_path / "wrong.jsonl", [{"prompt": "x", "completion": "y", "label": "good"}])
    assert "row 1: label 'good': it is true (good) or false (bad)" in refused("kto", recipe(dataset_name=str(wrong)))
    none = write_rows(tmp_path / "none.jsonl", [{"prompt": "x", "completion": "y"}])
    assert "row 1: label None" in refused("kto", recipe(dataset_name=str(none)))
    ties = write_rows(tmp_path / "ties.jsonl", [{**turns, "preference": 0.5}])
    assert "only ties" in refused("kto", recipe(dataset_name=str(ties)))
    assert "batch size" in refused("kto", recipe(per_device_train_batch_size=1))
