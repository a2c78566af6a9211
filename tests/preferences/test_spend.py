"""What one more answer is worth, by exact numbers where there are some, and by what must hold of any answers."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preferences.stats.consensus import Said, fit, posterior
from preferences.stats.spend import certainty, is_enough, next_pair, worth

KNOWN = fit([]).parameters
A, B, TIE = (1, 2), (2, 1), (1, 1)


def said(*ranks: tuple[int, ...]) -> list[Said]:
    return [Said(f"w{number}", one) for number, one in enumerate(ranks)]


def level(*ranks: tuple[int, ...]) -> float:
    return certainty(posterior(said(*ranks), {}, KNOWN))


def test_certainty_is_of_the_likelier_side() -> None:
    item = posterior(said(A, A), {}, KNOWN)
    assert certainty(item) == item.sure[0, 1] == level(B, B)
    assert level(A, B) == level(TIE) == 0.5
    assert 0.5 < level(A, TIE) < level(A) < level(A, A) < level(A, A, A) < 1
    three = posterior(said((1, 2, 3), (1, 3, 2)), {}, KNOWN)
    sides = [max(three.sure[i, j], three.sure[j, i]) for i, j in combinations(range(3), 2)]
    assert certainty(three) == pytest.approx(sum(sides) / 3)
    assert certainty(posterior([], {}, KNOWN)) == 0.5


def test_one_answer_is_never_enough() -> None:
    trusted = posterior(said(A), {"w0": 1.0}, KNOWN)
    assert certainty(trusted) > 0.8 and not is_enough(trusted, 1, 0.8)
    assert is_enough(posterior(said(A, A), {}, KNOWN), 2, 0.9)
    assert not is_enough(posterior(said(A, B), {}, KNOWN), 2, 0.51)


def test_what_an_answer_is_worth_is_mutual_information() -> None:
    """The same from the other end: of the answer's three values and the side, from their joint probabilities."""
    for answers in (said(A), said(A, B), said(A, A, TIE)):
        after = [posterior([*answers, Said("new", ranks)], {}, KNOWN).sure[0, 1] for ranks in (A, TIE, B)]
        now = posterior(answers, {}, KNOWN).sure[0, 1]
        # The chances of the three answers are those under which the expected probability is what it is now.
        value = worth(answers, {}, KNOWN)[0, 1]
        likely = _chances(answers)
        assert float(likely @ after) == pytest.approx(now, abs=1e-6)
        joint = np.array([likely * after, likely * (1 - np.array(after))])
        alone = np.outer(joint.sum(axis=1), joint.sum(axis=0))
        assert value == pytest.approx(float((joint * np.log2(joint / alone)).sum()), abs=1e-6)


def _chances(answers: list[Said]) -> np.ndarray:
    from preferences.stats.consensus import says

    return says(answers, {}, KNOWN, "nobody")[0]


def test_the_contested_is_worth_more_than_the_sure() -> None:
    def value(*ranks: tuple[int, ...]) -> float:
        return float(worth(said(*ranks), {}, KNOWN, responses=2)[0, 1])

    assert value() > value(A) > value(A, A) > value(A, A, A) > 0
    assert value(A, B) > value(A) and value(A, B, A, B) > value(A, A)
    assert value(TIE, TIE, TIE) < value(A, B)


def test_the_pair_to_ask_next_is_the_one_that_raters_differ_on() -> None:
    # All put 0 first; they differ on 1 and 2.
    answers = said((1, 2, 3), (1, 3, 2), (1, 2, 3), (1, 3, 2))
    assert next_pair(answers, {}, KNOWN) == (1, 2)
    assert next_pair(said((2, 1, 3, 4), (1, 2, 3, 4)), {}, KNOWN) == (0, 1)
    assert next_pair([], {}, KNOWN, responses=4) == (0, 1)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.permutations([1, 2, 3]) | st.sampled_from([[1, 1, 2], [2, 1, 1]]), min_size=1, max_size=4),
    st.permutations(range(3)),
)
def test_responses_in_another_order_are_worth_the_same(ranks: list[list[int]], order: list[int]) -> None:
    one = said(*map(tuple, ranks))
    other = said(*(tuple(given[place] for place in order) for given in ranks))
    forth, back = worth(one, {}, KNOWN), worth(other, {}, KNOWN)
    assert back == pytest.approx(forth[np.ix_(order, order)], abs=1e-6)
    assert (forth >= -1e-6).all() and (forth == forth.T).all() and not forth.diagonal().any()
    assert certainty(posterior(one, {}, KNOWN)) == pytest.approx(certainty(posterior(other, {}, KNOWN)), abs=1e-6)
