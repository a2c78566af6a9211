"""What is said of a single rater, against scipy, published examples, enumeration, and numbers worked by hand."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from preferences.stats.agreement import disagreement
from preferences.stats.intervals import wilson
from preferences.stats.raters import agreement_with_others, length_bias, position_bias, speeders

FIRST, SECOND, TIE = [1, 2], [2, 1], [1, 1]
SHOWN, TURNED = [0, 1], [1, 0]


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(case: tuple[int, int]) -> None:
    wins, n = case
    expected = binomtest(wins, n).proportion_ci(method="wilson")
    assert wilson(wins, n) == pytest.approx([expected.low, expected.high], abs=1e-12)


def test_wilson_of_newcombes_examples() -> None:
    # Newcombe (1998), "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17, table I,
    # method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for wins, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(wins, n) == pytest.approx([low, high], abs=5e-5)


def test_agreement_with_the_others_by_hand() -> None:
    # Item 1: a, b, c say first, d second: each of a, b, c sides with a lean (1), d does not (0).
    # Item 2: a and b tie, c says first: the others of a and of b lean to first, they tie: ½ each. c's do not lean.
    # Item 3: one answer, which compares with nothing.
    found = agreement_with_others(
        [{"a": FIRST, "b": FIRST, "c": FIRST, "d": SECOND}, {"a": TIE, "b": TIE, "c": FIRST}, {"e": FIRST}]
    )
    assert {rater: (one["value"], one["n"]) for rater, one in found.items()} == {
        "a": (0.75, 2),
        "b": (0.75, 2),
        "c": (1.0, 1),
        "d": (0.0, 1),
    }
    assert found["c"]["interval"] == wilson(1, 1)


def test_disagreement_by_hand() -> None:
    # Three of four say first: 3 of 6 pairs of answers agree. k = 3, two answers that agree on two of three pairs.
    # Opposite; alike; alone; none.
    items = [[FIRST, FIRST, FIRST, SECOND], [[1, 2, 3], [2, 1, 3]], [FIRST, SECOND], [TIE, TIE], [FIRST], []]
    assert disagreement(items) == pytest.approx([0.5, 1 / 3, 1.0, 0.0, None, None])
    # 2 first, 1 second, 1 tie: one of six pairs of answers agrees.
    assert disagreement([[FIRST, TIE, FIRST, SECOND]]) == pytest.approx([5 / 6])


def test_position_bias_of_pairs_is_a_share_of_the_decided_ones() -> None:
    # Shown as imported and the first better; shown turned and the second of the import, which stood first, better; a
    # tie, which decides nothing; shown turned and the first of the import better, which stood second.
    found = position_bias([(FIRST, SHOWN), (SECOND, TURNED), (TIE, SHOWN), (FIRST, TURNED)])
    assert found == {"first": 2 / 3, "interval": wilson(2, 3), "n": 3, "biased": False}
    assert position_bias([(TIE, SHOWN)]) is None and position_bias([]) is None


def test_who_is_biased_and_with_how_much_evidence() -> None:
    # Wilson leaves ½ out from 15 of 20 on (scipy: 0.5313; 14 of 20: 0.4810).
    def rater(first: int, n: int) -> bool:
        found = position_bias([(FIRST, SHOWN)] * first + [(FIRST, TURNED)] * (n - first))
        assert found is not None and found["n"] == n
        return found["biased"]

    assert rater(15, 20) and not rater(14, 20) and rater(5, 20)
    assert not rater(19, 19)  # too few to say


@pytest.mark.parametrize("ranks", [[1, 2, 3], [1, 2, 3, 4], [1, 1, 3, 4], [1, 2, 2, 2], [1, 1, 3, 3, 5]])
def test_pairs_of_a_ranking_count_for_as_many_trials_as_their_spread_over_all_orders_says(ranks: list[int]) -> None:
    # For every order in which the responses can stand: pairs in order less pairs out of order.
    k = len(ranks)
    differences, pairs = [], 0
    for shown in permutations(range(k)):
        seen = [ranks[number] for number in shown]
        signs = [np.sign(seen[j] - seen[i]) for i in range(k) for j in range(i + 1, k)]
        differences.append(sum(signs))
        pairs = sum(map(abs, signs))
    trials = pairs**2 / np.var(differences)
    found = position_bias([(ranks, list(range(k)))])
    assert found is not None and found["first"] == 1.0 and found["n"] == pairs
    assert found["interval"] == pytest.approx(wilson(trials, trials), abs=1e-12)


def test_an_unbiased_rater_is_called_biased_about_one_time_in_twenty() -> None:
    rng = np.random.default_rng(1)
    called = 0
    for _ in range(400):
        answers = [(list(range(1, 6)), rng.permutation(5).tolist()) for _ in range(30)]
        found = position_bias(answers)
        assert found is not None
        called += found["biased"]
    assert 8 <= called <= 34  # 5% of 400, and three standard errors around


def test_speeders() -> None:
    # Medians 60, 40, 10, 12; their median is 26, a third of it 8⅔.
    slow = {"a": [60.0], "b": [30.0, 40.0, 50.0], "c": [10.0] * 3}
    found = speeders(slow | {"d": [12.0] * 20})
    assert not any(one["is"] for one in found.values())
    assert found["d"] == {"is": False, "median_seconds": 12.0, "limit_seconds": pytest.approx(26 / 3)}
    # d at 8 seconds: the medians' median is 25, the limit 8⅓; one of nine answers is no evidence.
    assert speeders(slow | {"d": [8.0] * 10})["d"]["is"]
    assert not speeders(slow | {"d": [8.0] * 9})["d"]["is"]
    # And however many answers are theirs, they do not set the pace.
    assert speeders(slow | {"d": [1.0] * 10_000})["d"]["is"]
    assert speeders({}) == {}


def test_length_bias_is_what_the_other_raters_do_not_share():
    """Thirty pairs where the first is longer, and a fair coin says what the others' answers let expect."""
    coin = np.array([[0.5, 0.0, 0.5]])

    def said(longer: int) -> list[tuple[list[int], list[int], np.ndarray]]:
        return [([1, 2] if number < longer else [2, 1], [9, 5], coin) for number in range(30)]

    found = length_bias({"a": said(20), "b": said(20), "c": said(29), "d": [], "e": [([1, 1], [9, 5], coin)]})
    assert found["d"] is None and found["e"] is None, "nothing is decided"
    # Together they prefer the longer one in 69 of 90 pairs, and not in half of them.
    for name, longer, biased in (("a", 20, False), ("b", 20, False), ("c", 29, True)):
        one = found[name]
        assert one["expected"] == pytest.approx(69 / 90) and one["biased"] is biased
        assert (one["longer"], one["n"]) == (longer / 30, 30)
        assert one["interval"] == pytest.approx(wilson(longer, 30))
    # Pairs of one length and ties don't count.
    more = [([1, 2], [5, 5], coin), ([1, 1], [9, 5], coin)]
    assert length_bias({"a": [*said(20), *more], "b": said(20), "c": said(29)})["a"] == found["a"]
    assert length_bias({}) == {}


def test_length_bias_needs_twenty_pairs():
    coin = np.array([[0.5, 0.0, 0.5]])
    others = [([1, 2] if number % 2 else [2, 1], [9, 5], coin) for number in range(500)]
    for pairs, biased in ((19, False), (20, True)):
        found = length_bias({"others": others, "a": [([1, 2], [9, 5], coin)] * pairs})["a"]
        assert found["n"] == pairs and found["longer"] == 1.0 and found["biased"] is biased


def test_length_bias_of_rankings_counts_fewer_trials():
    likely = np.array([[0.8, 0.1, 0.1]] * 3)
    (found,) = length_bias({"a": [([1, 2, 3], [9, 5, 7], likely)]}).values()
    # Longer is better in (0,1), (0,2), not in (1,2). Who is alone is all raters together.
    assert found["longer"] == pytest.approx(2 / 3) and found["expected"] == pytest.approx(2 / 3)
    assert found["interval"] == wilson(4 / 3, 2.0)
