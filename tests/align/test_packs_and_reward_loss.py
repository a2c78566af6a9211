"""Packs hold every pair and every ranking once, and each of their texts once."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.data.packs import PairRow, RankingRow, length_chunks, pack_pairs, pack_rankings


def test_a_ranking_of_four_goes_through_the_model_as_four_texts() -> None:
    texts = [[1], [2], [3], [4]]
    rows = [PairRow(a, b, 1.0, 1.0) for a, b in itertools.combinations(texts, 2)]
    (pack,) = pack_pairs(rows, max_texts=8, seed=0)
    assert sorted(pack.texts) == texts
    assert len(pack.pairs) == 6


def test_a_tournament_larger_than_a_pack_is_cut_into_blocks() -> None:
    rows = [PairRow([a], [b], 1.0, 1.0) for a, b in itertools.combinations(range(12), 2)]
    packs = pack_pairs(rows, max_texts=8, seed=0)
    assert len(packs) == 3  # three blocks of four texts, each met with each other
    assert all(len(pack.texts) <= 8 for pack in packs)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 15), st.integers(0, 15), st.floats(0.5, 1), st.floats(0, 2)), min_size=1, max_size=60
    ),
    st.integers(2, 9),
    st.integers(0, 3),
)
def test_every_pair_is_in_exactly_one_pack(rows: list[tuple[int, int, float, float]], room: int, seed: int) -> None:
    given_rows = [PairRow([a], [b], p, w, p * w) for a, b, p, w in rows if a != b]
    packs = pack_pairs(given_rows, room, seed)
    found = []
    for pack in packs:
        assert len(pack.texts) <= room
        assert len({tuple(text) for text in pack.texts}) == len(pack.texts)
        for (first, second), *facts in zip(pack.pairs, pack.preference, pack.weight, pack.margin, strict=True):
            found.append((pack.texts[first], pack.texts[second], *facts))
    assert sorted(found) == sorted(given_rows)
    assert packs == pack_pairs(given_rows, room, seed)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 30), min_size=2, max_size=5, unique=True), st.integers(1, 3)),
        min_size=1,
        max_size=25,
    ),
    st.integers(5, 12),
)
def test_every_ranking_is_in_exactly_one_pack(items: list[tuple[list[int], int]], room: int) -> None:
    rows = []
    for number, (names, raters) in enumerate(items):
        ranks = [[1 + (place + rater) % len(names) for place in range(len(names))] for rater in range(raters)]
        rows.append(RankingRow([[name] for name in names], ranks, [float(number)] * raters, [0.5] * raters))
    packs = pack_rankings(rows, room, seed=0)
    found: list[object] = []
    for pack in packs:
        assert len(pack.texts) <= room
        assert len({tuple(text) for text in pack.texts}) == len(pack.texts)
        for places, ranks, weight, margin in zip(pack.rankings, pack.ranks, pack.weight, pack.margin, strict=True):
            found.append(([pack.texts[place] for place in places], ranks, weight, margin))
    assert sorted(found) == sorted((row.texts, ranks, row.weight[0], 0.5) for row in rows for ranks in row.ranks)
    for number in range(len(items)):  # all raters of an item in one pack
        assert sum(float(number) in pack.weight for pack in packs) == 1


def test_a_ranking_larger_than_a_pack() -> None:
    with pytest.raises(ValueError, match="room"):
        pack_rankings([RankingRow([[1], [2], [3]], [[1, 2, 3]], [1.0], [0.0])], 2, 0)


def test_texts_of_like_length_are_padded_together() -> None:
    assert length_chunks([10, 10, 100, 100]) == [range(0, 2), range(2, 4)]  # 20 + 200 tokens, where one run has 400
    assert length_chunks([90, 95, 100, 100]) == [range(0, 4)]
    assert length_chunks([7]) == [range(0, 1)]
