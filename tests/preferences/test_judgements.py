"""The judgements file, and how many verdicts on a prompt become one: by hand, and for any rows in any order."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preferences.errors import BadInput
from preferences.judgements import Judgement, by_prompt, pairs_of, read_judgements, write_judgements

ROW = {"prompt": "q1", "candidate": "dpo", "baseline": "base", "preference": 1.0}


def verdict(preference: float, prompt: str = "q1", **more) -> Judgement:
    return Judgement.model_validate(ROW | {"prompt": prompt, "preference": preference} | more)


def test_a_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    rows = [
        verdict(0.5, candidate_length=812, baseline_length=640, judge="gpt", order=1, sample=0, tags=["de"]),
        verdict(0, rater="w3", rater_groups=["expert"], difficulty=0.3),
    ]
    for name in ("a.jsonl", "a.jsonl.gz"):
        write_judgements(tmp_path / name, rows)
        assert read_judgements(tmp_path / name) == rows
    assert json.loads((tmp_path / "a.jsonl").read_text().splitlines()[1]) == {
        **ROW,
        "preference": 0.0,
        "rater": "w3",
        "rater_groups": ["expert"],
        "difficulty": 0.3,
    }
    (tmp_path / "array.json.gz").write_bytes(gzip.compress(json.dumps([ROW]).encode()))
    assert read_judgements(tmp_path / "array.json.gz") == [verdict(1)]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"preference": 1.2}, "line 2: preference: Input should be less than or equal to 1"),
        ({"preference": "1"}, "line 2: preference: Input should be a valid number"),
        ({"preference": True}, "line 2: preference"),
        ({"baseline": "dpo"}, "line 2: candidate and baseline are both 'dpo'; a verdict is on two models"),
        ({"order": 2}, "line 2: order: Input should be 0 or 1"),
        ({"sample": -1}, "line 2: sample"),
        ({"candidate_length": -5}, "line 2: candidate_length"),
        ({"candidat_length": 5}, "line 2: candidat_length: unknown key; known are prompt, candidate, baseline"),
        ({"prompt": ""}, "line 2: prompt"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, change: dict, sentence: str) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (ROW, ROW | change)))
    with pytest.raises(BadInput) as error:
        read_judgements(tmp_path / "a.jsonl")
    assert sentence in str(error.value) and str(tmp_path / "a.jsonl") in str(error.value)


def test_a_file_of_something_else_is_told_what_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text('{"prompt": [{"role": "user", "content": "Hi"}], "chosen": [], "rejected": []}\n')
    with pytest.raises(BadInput, match=r"line 1: not a judgement, as it names no `candidate` .*--judgements FILE"):
        read_judgements(path)


def test_a_file_without_judgements_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(BadInput, match="no judgements in it"):
        read_judgements(tmp_path / "a.jsonl")


def test_orders_are_averaged_before_samples_and_samples_before_judges() -> None:
    rows = [
        # gpt, sample 0: orders (1 + 0) / 2 = ½, the first of them said twice (1 and 1); sample 1: 1. So gpt: ¾.
        verdict(1, judge="gpt", sample=0, order=0),
        verdict(1, judge="gpt", sample=0, order=0),
        verdict(0, judge="gpt", sample=0, order=1),
        verdict(1, judge="gpt", sample=1, order=0),
        # llama said 0. So the prompt: (¾ + 0) / 2 = 3/8; a plain mean of the five would be 3/5.
        verdict(0, judge="llama", sample=0, order=0),
    ]
    means = by_prompt(rows, "dpo", "base")
    assert means.preferences.tolist() == [0.375]
    assert means.cells is None and means.judges == ["gpt", "llama"]


def test_raters_take_the_place_of_judges() -> None:
    rows = [
        verdict(1, "a", rater="w1"),
        verdict(0, "a", rater="w2", sample=0),
        verdict(1, "a", rater="w2", sample=1),
        verdict(0.5, "b", rater="w2"),
    ]
    means = by_prompt(rows, "dpo", "base")
    assert means.prompts == ["a", "b"]
    assert means.preferences.tolist() == [0.75, 0.5]
    assert means.cells == [(0, "w1", 1.0), (0, "w2", 0.5), (1, "w2", 0.5)]


def test_a_mean_that_is_a_half_is_a_tie_however_it_comes_about() -> None:
    # As floats (0.4 + 0.8 + 0.3) / 3 is a little more than 0.5, and in another order it is not.
    for values in ((0.4, 0.8, 0.3), (0.3, 0.4, 0.8), (0.6, 0.7, 0.2), (0.1, 0.9)):
        rows = [verdict(value, judge=f"j{place}") for place, value in enumerate(values)]
        assert by_prompt(rows, "dpo", "base").preferences.tolist() == [0.5]


def test_lengths_are_known_only_where_every_prompt_has_them() -> None:
    known = {"candidate_length": 10, "baseline_length": 4}
    rows = [verdict(1, "a", **known), verdict(1, "a", judge="silent"), verdict(0, "b", **known)]
    means = by_prompt(rows, "dpo", "base")
    assert means.candidate_length is not None and means.candidate_length.tolist() == [10, 10]
    assert by_prompt([*rows, verdict(1, "c", candidate_length=3)], "dpo", "base").baseline_length is None


ROWS = st.lists(
    st.builds(
        verdict,
        st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0]),
        st.sampled_from("abc"),
        judge=st.sampled_from([None, "j1", "j2"]),
        rater=st.sampled_from([None, "w1", "w2"]),
        order=st.sampled_from([None, 0, 1]),
        sample=st.sampled_from([None, 0, 1]),
        candidate_length=st.integers(0, 9),
        baseline_length=st.integers(0, 9),
        tags=st.lists(st.sampled_from("xy"), max_size=2),
    ),
    min_size=1,
    max_size=12,
)


@given(ROWS, st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_their_direction_changes_anything(rows, chance) -> None:
    before = by_prompt(rows, "dpo", "base")
    mixed = [row.turned() if chance.random() < 0.5 else row for row in rows]
    chance.shuffle(mixed)
    after = by_prompt(mixed, "dpo", "base")
    assert (after.prompts, after.judges, after.tags) == (before.prompts, before.judges, before.tags)
    for field in ("preferences", "candidate_length", "baseline_length"):
        np.testing.assert_allclose(getattr(after, field), getattr(before, field), atol=1e-15)
    turned = by_prompt(mixed, "base", "dpo")
    np.testing.assert_allclose(turned.preferences, 1 - before.preferences, atol=1e-15)
    np.testing.assert_allclose(turned.candidate_length, before.baseline_length, atol=1e-15)
    shuffled = list(rows)
    chance.shuffle(shuffled)
    assert by_prompt(shuffled, "dpo", "base").preferences.tolist() == before.preferences.tolist()


def test_turning_a_verdict_round_turns_all_of_it() -> None:
    row = verdict(0.25, candidate_length=5, order=0)
    turned = row.turned()
    assert (turned.candidate, turned.baseline, turned.preference, turned.order) == ("base", "dpo", 0.75, 1)
    assert (turned.candidate_length, turned.baseline_length) == (None, 5)
    assert turned.turned() == row


def test_a_pair_goes_the_way_that_most_rows_go_or_to_the_baseline() -> None:
    rows = [verdict(1, "a"), verdict(1, "b"), verdict(0, "c").turned(), verdict(1, "d", candidate="ppo")]
    pairs = pairs_of(rows)
    assert list(pairs) == [("dpo", "base"), ("ppo", "base")]
    assert [row.preference for row in pairs["dpo", "base"]] == [1, 1, 0]
    assert list(pairs_of(rows, "dpo")) == [("base", "dpo"), ("ppo", "base")]
    even = [verdict(1, "a"), verdict(1, "b").turned()]
    assert list(pairs_of(even)) == list(pairs_of(even[::-1])) == [("base", "dpo")]


@pytest.mark.parametrize("key", ["candidate_length", "baseline_length", "sample"])
def test_numbers_that_nothing_can_count_are_refused(tmp_path: Path, key: str) -> None:
    row = {"prompt": "p", "candidate": "a", "baseline": "b", "preference": 1, key: 10**400}
    (tmp_path / "j.jsonl").write_text(json.dumps(row))
    with pytest.raises(BadInput, match=f"line 1: {key}"):
        read_judgements(tmp_path / "j.jsonl")
