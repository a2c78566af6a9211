"""Agreement by hand: what is counted, in all and in parts; its intervals; what must not depend on what.

test_agreement_references.py holds the comparisons with other programs and with published numbers.
"""

import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preferences.stats.agreement import agreement, agreement_in_parts, periods
from preferences.stats.bootstrap import CELLS, draws

FIRST, SECOND, TIE = [1, 2], [2, 1], [1, 1]


def test_agreement_reads_krippendorffs_binary_example_from_rankings():
    meg, owen = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    facts = agreement([[[FIRST, SECOND][a], [FIRST, SECOND][b]] for a, b in zip(meg, owen, strict=True)])
    assert facts["krippendorff_alpha_nominal"] == pytest.approx(0.09523809523809534, abs=1e-12)
    assert facts["raw"] == 0.6  # units 2, 4, 5, 7, 8, 10
    assert (facts["units"], facts["raters_per_unit"]) == (10, 2.0)
    # Both orientations: 20 units, 2 x 8 ordered disagreements; 20 values of each side in 40:
    # 1 - 39 * 16 / (40² - 2 * 20²) = 1 - 624 / 800
    assert facts["krippendorff_alpha_symmetrised"] == pytest.approx(1 - 624 / 800, abs=1e-12)
    assert facts["kendall_w"] is None and facts["tau_b"] is None
    low, high = facts["krippendorff_alpha_nominal_interval"]
    assert low < 0.095 < high


def test_ties_and_ragged_numbers_of_answers_by_hand():
    # Unit 1: first, first, tie; unit 2: second, second; unit 3: a single answer, which compares with nothing.
    facts = agreement([[FIRST, FIRST, TIE], [SECOND, SECOND], [FIRST]])
    # Pairs of answers: 3 + 1, of which 1 + 1 agree. Units with two answers: 2, with 5 answers.
    assert facts["raw"] == 0.5
    assert (facts["units"], facts["raters_per_unit"]) == (2, 2.5)
    # Off-diagonal: unit 1 (9 - 4 - 1) / 2 = 2. Totals first 2, tie 1, second 2: 1 - 4 * 2 / (25 - 9) = 0.5
    assert facts["krippendorff_alpha_nominal"] == pytest.approx(0.5)
    # Symmetrised: 10 values, 4 first, 2 tie, 4 second, off-diagonal 4: 1 - 9 * 4 / (100 - 36)
    assert facts["krippendorff_alpha_symmetrised"] == pytest.approx(1 - 36 / 64)


def test_means_over_items_with_three_responses():
    # Item 1: W = 1, tau = 1. Item 2: opposite orders, W = 0, tau = -1. The pair of two responses doesn't enter.
    facts = agreement([[[1, 2, 3], [1, 2, 3]], [[1, 2, 3], [3, 2, 1]], [FIRST, SECOND]])
    assert facts["kendall_w"] == pytest.approx(0.5)
    assert facts["tau_b"] == pytest.approx(0.0)


@pytest.mark.parametrize("items", [[], [[]], [[FIRST]], [[FIRST], [[1, 2, 3]]]])
def test_nothing_to_compare_is_null(items):
    facts = agreement(items)
    assert facts["units"] == 0
    assert all(value is None for key, value in facts.items() if key not in ("units", "cohen_kappa_pairs"))


def test_no_variation_is_null_and_symmetrised_it_is_one():
    facts = agreement([[FIRST, FIRST], [FIRST, FIRST]])
    assert facts["raw"] == 1.0
    assert facts["krippendorff_alpha_nominal"] is None
    assert facts["krippendorff_alpha_nominal_interval"] is None
    assert facts["krippendorff_alpha_symmetrised"] == 1.0


@pytest.mark.parametrize("answers", [[[1, 2], [1, 2, 3]], [[1], [1]]])
def test_ragged_answers_are_refused(answers):
    with pytest.raises(ValueError, match="item 1"):
        agreement([[FIRST, SECOND], answers])


def ranked(k: int):
    return st.lists(st.integers(1, k), min_size=k, max_size=k)


ITEMS = st.lists(st.integers(2, 4).flatmap(lambda k: st.lists(ranked(k), max_size=4)), max_size=8)


@given(ITEMS, st.data())
def test_nothing_depends_on_who_or_which_came_first(items, data):
    facts = agreement(items, resamples=20)
    json.dumps(facts, allow_nan=False)
    orders = [data.draw(st.permutations(range(len(item[0])))) if item else [] for item in items]
    shuffled = [
        data.draw(st.permutations([[ranks[i] for i in order] for ranks in item]))
        for item, order in zip(items, orders, strict=True)
    ]
    other = agreement(data.draw(st.permutations(shuffled)), resamples=20)
    for key in ("raw", "krippendorff_alpha_symmetrised", "kendall_w", "tau_b", "units", "raters_per_unit"):
        assert facts[key] == (None if other[key] is None else pytest.approx(other[key], abs=1e-9))


@given(ITEMS)
def test_bounds(items):
    facts = agreement(items, resamples=20)
    for key, low in (("raw", 0), ("krippendorff_alpha_symmetrised", -1), ("kendall_w", 0), ("tau_b", -1)):
        assert facts[key] is None or low - 1e-9 <= facts[key] <= 1 + 1e-9


def test_intervals_are_percentiles_of_the_whole_computed_anew():
    """Each resample as a list of items, one by one, through the same function without resampling."""
    rng = np.random.default_rng(5)
    items = [rng.integers(1, k + 1, size=(m, k)).tolist() for m, k in zip([2, 3, 4] * 7, [2, 3, 3] * 7, strict=True)]
    raters = [["a", "b", "c", "d"][: len(item)] for item in items]
    facts = agreement(items, raters, resamples=40, seed=3)
    weights = np.concatenate(list(draws(len(items), 40, 3)), axis=1).astype(int)
    assert (weights.sum(axis=0) == len(items)).all()
    anew = []
    for column in weights.T:
        again = np.repeat(np.arange(len(items)), column)
        anew.append(agreement([items[i] for i in again], [raters[i] for i in again], resamples=1))
    for name in (key for key in facts if f"{key}_interval" in facts and key != "cohen_kappa"):  # its pairs vary
        expected = np.percentile([one[name] for one in anew], [2.5, 97.5])
        assert facts[f"{name}_interval"] == pytest.approx(expected, abs=1e-9), name


def test_more_resamples_at_a_time_or_fewer_are_the_same_draws():
    whole = np.concatenate(list(draws(7, 50, 1)), axis=1)
    few = list(draws(7, 50, 1, widest=CELLS // 4))
    assert len(few) == 13
    np.testing.assert_array_equal(np.concatenate(few, axis=1), whole)


def test_parts_by_hand():
    items = [[FIRST, FIRST], [FIRST, SECOND], [SECOND, SECOND, SECOND], [TIE]]
    raters = [["a", "b"], ["a", "b"], ["a", "b", "c"], ["a"]]
    helpful = [[[1, 5], [2, 5]], [[3, 3], [3, 3]], [[4, 4], [4, 4]], []]
    tags = [["x"], ["x", "y"], ["y"], ["z"]]
    found = agreement_in_parts(items, raters, tags=tags, ratings={"helpful": helpful})
    x, y = found["tags"]
    assert [(one["tag"], one["items"], one["raw"]) for one in (x, y)] == [("x", 2, 0.5), ("y", 2, 0.75)]
    # x: first 3, second 1, one disagreement: 1 - 3 * 1 / 3; y: first 1, second 4, one of two: 1 - 4 * 1 / 4
    assert x["krippendorff_alpha_nominal"] == y["krippendorff_alpha_nominal"] == 0.0
    (dimension,) = found["dimensions"]
    assert (dimension["dimension"], dimension["items"], dimension["units"], dimension["raw"]) == (
        "helpful",
        3,
        6,
        5 / 6,
    )
    # Values 1, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5: n = 12, mean 41 / 12, and Σ v² = 155;
    # one disagreement of 1² in either order: 1 - 11 * 2 / (2 (12 * 155 - 41²))
    assert dimension["krippendorff_alpha_interval"] == pytest.approx(1 - 11 / (12 * 155 - 41**2))
    # a: alike with b on items 1 and 3, with c on 3; gave first 2, second 1; b: first 1, second 2
    assert found["raters"]["a"]["raw"] == 2 / 3
    assert found["raters"]["a"]["kappa"] == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9))
    assert found["raters"]["c"] == {
        "items": 1, "units": 1, "kappa": None, "kappa_interval": None, "raw": 1.0, "raw_interval": None,
    }  # fmt: skip
    assert found["rater_pairs"] == [] and found["agreement"]["cohen_kappa"] is None, "too few units"
    assert found["over_time"] == []


def test_no_tag_is_judged_by_a_few_items_nor_for_being_one_of_many():
    def tagged(bad: int, good: int, more: int = 0):
        """`bad` items of the tag x that raters differ on and `good` ones that they don't, of 400, 3 in 10 bad."""
        own = [[FIRST, SECOND]] * bad + [[FIRST, FIRST], [SECOND, SECOND]] * (good // 2)
        rest = ([[FIRST, SECOND]] * 3 + [[FIRST, FIRST]] * 4 + [[SECOND, SECOND]] * 3) * ((400 - bad - good) // 10)
        tags = [["x"]] * len(own) + [[str(n % more)] if more else [] for n in range(len(rest))]
        return {one["tag"]: one["less"] for one in agreement_in_parts(own + rest, tags=tags)["tags"]}

    assert tagged(3, 0) == {"x": None}
    assert tagged(20, 0) == {"x": True}
    assert tagged(10, 12)["x"] is False
    assert tagged(18, 16) == {"x": True}, "alone"
    assert set(tagged(18, 16, more=12).values()) == {False}, "one of thirteen"


def test_two_raters_who_share_enough_are_a_pair():
    items = [[FIRST, FIRST]] * 15 + [[FIRST, SECOND]] * 5
    found = agreement_in_parts(items, [["b", "a"]] * 20)
    # b always says first: what a says carries nothing.
    (pair,) = found["rater_pairs"]
    assert pair["raters"] == ["a", "b"] and pair["units"] == 20 and pair["raw"] == 0.75 and pair["kappa"] == 0.0
    assert found["agreement"]["cohen_kappa"] == 0.0 and found["agreement"]["cohen_kappa_pairs"] == 1
    assert agreement_in_parts(items[1:], [["b", "a"]] * 19)["rater_pairs"] == []


def test_stretches_of_time():
    assert periods([]) == periods([None] * 50) == periods([1.0] * 50) == periods([float(n) for n in range(39)]) == []
    stretches = periods([float(-n) for n in range(45)] + [None])
    assert [len(one) for one in stretches] == [23, 22] and stretches[0][0] == 44 and stretches[1][-1] == 0
    assert len(periods([float(n) for n in range(1000)])) == 10

    # One reply after another, the second half always against the first rater.
    items = [[FIRST, FIRST], [SECOND, SECOND]] * 10 + [[FIRST, SECOND], [SECOND, FIRST]] * 10
    moments = [1_700_000_000.0 + 60 * n for n in range(40)]
    early, late = agreement_in_parts(items, moments=moments)["over_time"]
    assert (early["from"], early["to"]) == ("2023-11-14T22:13:20Z", "2023-11-14T22:32:20Z")
    assert (early["krippendorff_alpha_nominal"], late["raw"], late["items"]) == (1.0, 0.0, 20)
    assert late["krippendorff_alpha_nominal"] < -0.9


def test_answers_without_ratings_are_left_out():
    ratings = {"helpful": [[[1, 2], [1, 2]], [[5, 5]], []], "never": [[], [], []]}
    found = agreement_in_parts([[FIRST, FIRST]] * 3, ratings=ratings)
    helpful, never = found["dimensions"]
    assert helpful["items"] == 1 and helpful["krippendorff_alpha_ordinal"] == 1.0
    assert helpful["krippendorff_alpha_ordinal_interval"] is None
    assert never["units"] == 0 and never["raw"] is None


def test_ratings_that_are_all_different_fit_into_memory():
    ratings = np.random.default_rng(0).random((4000, 3, 2)).tolist()
    (found,) = agreement_in_parts([[FIRST] * 3] * 4000, ratings={"d": ratings}, resamples=5)["dimensions"]
    assert found["raw"] == 0.0 and found["krippendorff_alpha_nominal"] == pytest.approx(0.0)
    assert found["krippendorff_alpha_ordinal"] == pytest.approx(0.0, abs=0.03)


@given(ITEMS)
def test_parts_are_none_and_never_nan(items):
    raters = [[f"r{number}" for number in range(len(item))] for item in items]
    tags = [["x"] if number % 2 else ["x", "y"] for number in range(len(items))]
    ratings = {"d": [item for item in items]}
    json.dumps(agreement_in_parts(items, raters, tags=tags, ratings=ratings, resamples=5), allow_nan=False)


def test_a_large_project_takes_seconds():
    """Of processor time; it takes a third of a second where nothing else runs."""
    rng = np.random.default_rng(0)
    items = rng.choice([[1, 2], [2, 1], [1, 1]], size=(10_000, 3)).tolist()
    raters = [[f"r{number}" for number in rng.choice(40, 3, replace=False)] for _ in items]
    tags = [[f"t{number % 20}"] for number in range(10_000)]
    ratings = {"helpful": rng.integers(1, 6, size=(10_000, 3, 2)).tolist()}
    start = time.process_time()
    agreement_in_parts(items, raters, tags=tags, moments=[float(n) for n in range(10_000)], ratings=ratings)
    assert time.process_time() - start < 2


@pytest.mark.slow
def test_intervals_hold_what_they_promise():
    """In 400 projects of 150 items from one population, alpha's 95% interval holds the population's in 91% to 98%."""
    rng = np.random.default_rng(7)

    def project(items: int) -> list[list[list[int]]]:
        side = rng.integers(0, 2, size=(items, 1))
        right = rng.random((items, 3)) < rng.choice([0.6, 0.9], size=(items, 1))
        tie = rng.random((items, 3)) < 0.15
        return np.array([[1, 2], [2, 1], [1, 1]])[np.where(tie, 2, np.where(right, side, 1 - side))].tolist()

    names = ["raw", "krippendorff_alpha_nominal", "krippendorff_alpha_ordinal", "fleiss_kappa"]
    truth = agreement(project(200_000), resamples=1)
    held = dict.fromkeys(names, 0)
    for number in range(400):
        found = agreement(project(150), resamples=400, seed=number)
        for name in names:
            low, high = found[f"{name}_interval"]
            held[name] += low <= truth[name] <= high
    assert all(0.91 * 400 <= count <= 0.98 * 400 for count in held.values()), held
