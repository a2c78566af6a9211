"""Packs hold every pair once; the soft Bradley-Terry loss has the numbers that it should."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from align.data.packs import length_chunks, pack_pairs
from align.train.losses import soft_bradley_terry


def test_a_ranking_of_four_goes_through_the_model_as_four_texts() -> None:
    texts = [[1], [2], [3], [4]]
    rows = [(a, b, 1.0, 1.0) for a, b in itertools.combinations(texts, 2)]
    (pack,) = pack_pairs(rows, max_texts=8, seed=0)
    assert sorted(pack.texts) == texts
    assert len(pack.pairs) == 6


def test_a_tournament_larger_than_a_pack_is_cut_into_blocks() -> None:
    rows = [([a], [b], 1.0, 1.0) for a, b in itertools.combinations(range(12), 2)]
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
    given_rows = [([a], [b], p, w) for a, b, p, w in rows if a != b]
    packs = pack_pairs(given_rows, room, seed)
    found = []
    for pack in packs:
        assert len(pack.texts) <= room
        assert len({tuple(text) for text in pack.texts}) == len(pack.texts)
        for (first, second), preference, weight in zip(pack.pairs, pack.preference, pack.weight, strict=True):
            found.append((pack.texts[first], pack.texts[second], preference, weight))
    assert sorted(found) == sorted(given_rows)
    assert packs == pack_pairs(given_rows, room, seed)


def test_texts_of_like_length_are_padded_together() -> None:
    assert length_chunks([10, 10, 100, 100]) == [range(0, 2), range(2, 4)]  # 20 + 200 tokens, where one run has 400
    assert length_chunks([90, 95, 100, 100]) == [range(0, 4)]
    assert length_chunks([7]) == [range(0, 1)]


def test_hard_labels_give_the_usual_reward_loss() -> None:
    # scores 2 over 1 and 0 over 3: -log s(1) = log(1 + e^-1) = 0.313262, -log s(-3) = log(1 + e^3) = 3.048587
    loss = soft_bradley_terry(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 3.0]), torch.ones(2), torch.ones(2))
    assert loss.item() == pytest.approx((0.313262 + 3.048587) / 2, abs=1e-6)


def test_soft_labels_and_weights() -> None:
    # d = 1, p = 0.75: 0.75 * 0.313262 + 0.25 * 1.313262 = 0.563262; d = 0, p = 0.5: log 2; weights 3 to 1
    loss = soft_bradley_terry(
        torch.tensor([1.0, 5.0]), torch.tensor([0.0, 5.0]), torch.tensor([0.75, 0.5]), torch.tensor([3.0, 1.0])
    )
    assert loss.item() == pytest.approx((3 * 0.563262 + math.log(2)) / 4, abs=1e-6)


def test_the_loss_is_least_where_the_model_says_what_the_raters_said() -> None:
    difference = torch.tensor([0.3], requires_grad=True)
    p = torch.sigmoid(torch.tensor([0.3]))
    soft_bradley_terry(difference, torch.zeros(1), p, torch.ones(1)).backward()
    assert difference.grad is not None
    assert difference.grad.item() == pytest.approx(0.0, abs=1e-7)


def test_no_trust_at_all_is_no_loss_and_no_nan() -> None:
    loss = soft_bradley_terry(torch.tensor([1.0]), torch.tensor([0.0]), torch.ones(1), torch.zeros(1))
    assert loss.item() == 0.0
