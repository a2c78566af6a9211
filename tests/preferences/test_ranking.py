"""NDCG, MRR and ROC-AUC, against scikit-learn's numbers, by hand, and by their definitions."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preferences.stats.ranking import gains, ndcg, rankings, reciprocal_rank, roc_auc

TIED = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=5)


def test_ndcg_is_scikit_learns() -> None:
    """The examples of sklearn.metrics.ndcg_score's page, with all digits of scikit-learn 1.9.1."""
    relevance = [10, 0, 0, 1, 5]
    assert ndcg(relevance, [0.1, 0.2, 0.3, 4, 70]) == pytest.approx(0.6956940443813076)
    assert ndcg(relevance, [0.05, 1.1, 1.0, 0.5, 0.0]) == pytest.approx(0.493680191377376)
    assert ndcg(relevance, [0.05, 1.1, 1.0, 0.5, 0.0], k=4) == pytest.approx(0.3520241100634488)
    assert ndcg(relevance, relevance, k=4) == 1
    assert ndcg(relevance, [1, 0, 0, 0, 1], k=1) == pytest.approx(0.75)
    assert ndcg(relevance, [1, 0, 0, 0, 1]) == pytest.approx(0.9279733094794905)
    assert ndcg([3, 2, 3, 0, 1, 2], [6, 5, 4, 3, 2, 1]) == pytest.approx(0.9608081943360616)
    assert ndcg([3, 2, 1.5, 1.5], [1, 1, 1, 0]) == pytest.approx(0.9302131830706901)


@settings(max_examples=40)
@given(TIED)
def test_equal_scores_get_the_mean_over_all_their_orders(rows: list[tuple[int, int]]) -> None:
    relevance, scores = [float(row[0]) for row in rows], [float(row[1]) for row in rows]
    discounted, first = [], []
    for order in itertools.permutations(range(len(rows))):
        if any(scores[a] < scores[b] for a, b in itertools.pairwise(order)):
            continue
        discounted.append(sum(relevance[n] / math.log2(place + 2) for place, n in enumerate(order)))
        first.append(next((1 / (place + 1) for place, n in enumerate(order) if relevance[n] > 0), 0.0))
    best = sum(gain / math.log2(place + 2) for place, gain in enumerate(sorted(relevance, reverse=True)))
    if best == 0:
        assert ndcg(relevance, scores) is None
        assert reciprocal_rank(relevance, scores) is None
    else:
        assert ndcg(relevance, scores) == pytest.approx(np.mean(discounted) / best)
        assert reciprocal_rank(relevance, scores) == pytest.approx(np.mean(first))


def test_the_reciprocal_rank_of_the_first_that_is_right() -> None:
    assert reciprocal_rank([0, 1, 0, 1], [4, 3, 2, 1]) == 0.5
    assert reciprocal_rank([1, 0], [1, 1]) == 0.75, "first or second, with equal chances"


def test_gains_are_how_many_others_a_response_beats() -> None:
    assert gains([1, 2, 3]).tolist() == [2, 1, 0]
    assert gains([1, 2, 2, 1]).tolist() == [2.5, 0.5, 0.5, 2.5]


def test_over_rankings() -> None:
    """By hand: right, wrong, and one in which all tie. Two responses have gains 1 and 0, the second place counts
    1 / log2(3) = 0.63093; chance is the mean of both places.
    """
    found = rankings([[1, 2], [1, 2], [1, 1]], [[5, 1], [1, 5], [1, 2]], ["a", "b", "c"])
    assert found is not None
    assert found["rankings"] == found["ndcg"]["n"] == 2
    assert found["ndcg"]["mean"] == pytest.approx((1 + 0.63092975) / 2)
    assert found["mrr"]["mean"] == pytest.approx(0.75)
    assert found["chance"] == {"ndcg": pytest.approx((1 + 0.63092975) / 2), "mrr": pytest.approx(0.75)}
    assert rankings([[1, 1]], [[0, 1]]) is None


def test_auc_is_scikit_learns() -> None:
    """The example of sklearn.metrics.roc_auc_score's page, and one with ties, by scikit-learn 1.9.1."""
    found = roc_auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    assert found is not None
    assert found["mean"] == 0.75
    # DeLong by hand: the positives are above ½ and all of the negatives, these below all and ½ of the positives; both
    # variances are 1/8, and 1/8 / 2 + 1/8 / 2 = 1/8
    assert found["standard_error"] == pytest.approx(math.sqrt(1 / 8))
    tied = roc_auc([3, 1, 2, 2, 2, 0, 5, 3, 1, 1], [1, 0, 1, 1, 0, 0, 1, 0, 1, 0])
    assert tied is not None
    assert tied["mean"] == pytest.approx(0.74)
    assert roc_auc([1, 2], [True, True]) is None


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=4, max_size=12))
def test_auc_and_its_standard_error_are_what_they_are_defined_as(rows: list[tuple[int, bool]]) -> None:
    """DeLong, DeLong & Clarke-Pearson 1988: variances of each one's mean comparison with the other kind."""
    hit, miss = [s for s, y in rows if y], [s for s, y in rows if not y]
    found = roc_auc([s for s, _ in rows], [y for _, y in rows])
    if not hit or not miss:
        assert found is None
        return
    won = np.array([[(a > b) + 0.5 * (a == b) for b in miss] for a in hit])
    assert found is not None
    assert found["mean"] == pytest.approx(won.mean())
    if min(won.shape) > 1:
        parts = [won.mean(axis=axis).var(ddof=1) / won.shape[1 - axis] for axis in (0, 1)]
        assert found["standard_error"] == pytest.approx(math.sqrt(sum(parts)), abs=1e-9)
    if found["interval"] is not None:
        assert 0 <= found["interval"][0] <= found["mean"] <= found["interval"][1] <= 1


def test_what_hangs_together_counts_once() -> None:
    """Every response four times in its own cluster is no more evidence than once."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2 == 0
    s = rng.normal(size=60) + y
    once, copied = roc_auc(s, y), roc_auc(np.tile(s, 4), np.tile(y, 4), np.tile(np.arange(60), 4))
    naive = roc_auc(np.tile(s, 4), np.tile(y, 4))
    assert once is not None and copied is not None and naive is not None
    assert copied["mean"] == pytest.approx(once["mean"])
    assert copied["standard_error"] == pytest.approx(once["standard_error"])
    assert naive["standard_error"] < 0.6 * once["standard_error"]


def test_the_interval_covers_when_prompts_differ() -> None:
    """Pairs on prompts of different difficulty; the true AUC of N(1, 2) over N(0, 2) is Φ(1/2) = 0.6915."""
    rng = np.random.default_rng(1)
    covered, trials, prompts = 0, 400, 60
    for _ in range(trials):
        shared = rng.normal(size=prompts)
        s = np.concatenate([shared + rng.normal(size=prompts) + 1, shared + rng.normal(size=prompts)])
        found = roc_auc(s, np.arange(2 * prompts) < prompts, np.tile(np.arange(prompts), 2))
        assert found is not None
        covered += found["interval"][0] < 0.69146 < found["interval"][1]
    assert covered / trials > 0.928  # 0.95 less two standard errors of 400 trials


def test_a_perfect_order_has_no_interval_of_no_width() -> None:
    found = roc_auc([3, 4, 1, 2], [1, 1, 0, 0])
    assert found is not None
    assert found["mean"] == 1
    assert found["interval"] == pytest.approx([math.sqrt(0.025), 1])  # Clopper-Pearson of 2 in 2
