"""Reliability by hand, and of simulated raters whose error rate is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preferences.stats.reliability import reliability

FIRST, SECOND, TIE = [1, 2], [2, 1], [1, 1]


def test_by_hand():
    # Item 1: a, b, c say first, d says second. a, b, c side with a lean of the others (1), d doesn't (0).
    # Item 2: a and b tie, c says first. The others of a (b, c) lean to first, as do b's: ½ each. c's don't lean.
    items = [{"a": FIRST, "b": FIRST, "c": FIRST, "d": SECOND}, {"a": TIE, "b": TIE, "c": FIRST}]
    # a: 1, ½; b: 1, ½; c: 1; d: 0. Pool p = 4 / 6.
    p = 4 / 6
    expected = {
        "a": 2 * (1.5 + 4 * p) / 6 - 1,
        "b": 2 * (1.5 + 4 * p) / 6 - 1,
        "c": 2 * (1 + 4 * p) / 5 - 1,
        "d": 2 * (0 + 4 * p) / 5 - 1,
    }
    assert reliability(items) == pytest.approx(expected)


def test_a_ranking_counts_as_one_answer():
    # b and c agree on all three pairs; a turns one around and so agrees on 2/3 of them.
    # Others of b (a, c): on the pair (0, 1) a says second, c first: no lean; on the other two b agrees: 1. c likewise.
    p = (2 / 3 + 1 + 1) / 3
    result = reliability([{"a": [2, 1, 3], "b": [1, 2, 3], "c": [1, 2, 3]}])
    assert result["a"] == pytest.approx(2 * (2 / 3 + 4 * p) / 5 - 1)
    assert result["b"] == result["c"] == pytest.approx(2 * (1 + 4 * p) / 5 - 1)


def test_who_shares_nothing_gets_the_pools_value_and_a_lone_pool_gets_one():
    result = reliability([{"a": FIRST, "b": FIRST}, {"hermit": SECOND}, {}])
    assert result == {"a": 1.0, "b": 1.0, "hermit": 1.0}
    result = reliability([{"a": FIRST, "b": FIRST, "c": SECOND}, {"hermit": SECOND}])
    # a's others (b, c) don't lean, nor do b's; c disagrees: the pool is p = 0, so everybody has 0.
    assert result == {"a": 0.0, "b": 0.0, "c": 0.0, "hermit": 0.0}
    assert reliability([{"a": FIRST}, {"b": SECOND}]) == {"a": 1.0, "b": 1.0}
    assert reliability([]) == {}


def test_a_careless_rater_stands_out():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, size=400)
    errors = {"good": 0.05, "fair": 0.2, "b": 0.1, "c": 0.1, "d": 0.1, "careless": 0.5, "contrary": 0.9}
    items = [
        {rater: [FIRST, SECOND][int(side ^ (rng.random() < error))] for rater, error in errors.items()}
        for side in truth
    ]
    result = reliability(items)
    assert result["good"] > result["fair"] > 0.3
    assert result["careless"] < 0.1
    assert result["contrary"] == 0.0


@given(
    st.lists(
        st.integers(2, 4).flatmap(
            lambda k: st.dictionaries(
                st.sampled_from("abcde"), st.lists(st.integers(1, k), min_size=k, max_size=k), max_size=5
            )
        ),
        max_size=8,
    )
)
def test_between_zero_and_one_and_for_everybody(items):
    result = reliability(items)
    assert set(result) == {rater for item in items for rater in item}
    assert all(0 <= value <= 1 for value in result.values())
