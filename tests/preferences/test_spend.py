"""How sure answers are, by exact numbers where there are some, and by what must hold of any answers."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preferences.stats.consensus import Said, fit, posterior
from preferences.stats.spend import certainty, is_enough

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


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.permutations([1, 2, 3]) | st.sampled_from([[1, 1, 2], [2, 1, 1]]), min_size=1, max_size=4),
    st.permutations(range(3)),
)
def test_responses_in_another_order_are_as_sure(ranks: list[list[int]], order: list[int]) -> None:
    one = said(*map(tuple, ranks))
    other = said(*(tuple(given[place] for place in order) for given in ranks))
    assert certainty(posterior(one, {}, KNOWN)) == pytest.approx(certainty(posterior(other, {}, KNOWN)), abs=1e-6)
