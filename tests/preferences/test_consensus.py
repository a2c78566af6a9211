"""The consensus model: against numerical integration, choix, simulated raters, and what must hold of any answers."""

import time
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import norm

from preferences.stats.consensus import Fit, Parameters, Rater, Said, expected, fit, posterior
from preferences.stats.raters import spammer
from preferences.stats.reliability import tables

FIRST, SECOND, TIE = [1, 2], [2, 1], [1, 1]
PARAMETERS = Parameters(spread=3.0, reliability=0.8, ties=0.2, strong=(0.6, 0.25))


def simulated(n: int, m: int, reliability: list[float], *, k: int = 2, seed: int = 0) -> tuple[list[list[Said]], Any]:
    """Items with m answers each of raters r0, r1, …, by the model; scores (n, k) with a spread of 3 and 10% of ties."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, k)) * 3 / 2**0.5
    cut = np.quantile(np.abs(rng.normal(size=100_000) * 3 + rng.logistic(size=100_000)), 0.1)
    items = []
    for score in scores:
        item = []
        for rater in rng.choice(len(reliability), m, replace=False):
            seen = score if rng.random() < reliability[rater] else rng.normal(size=k) * 3 / 2**0.5
            seen = seen + rng.gumbel(size=k)
            ranks = [1 + int((seen > one + (cut if k == 2 else 0)).sum()) for one in seen]
            item.append(Said(f"r{rater}", ranks))
        items.append(item)
    return items, scores


# Exact numbers


def test_a_pair_is_what_integration_gives() -> None:
    raters = {"a": Rater(0.9, (0.8, 1.0), 50, 0.1), "b": Rater(0.4, (0.2, 0.6), 50, 0.3), "c": 0.7}
    found = posterior([Said("a", FIRST), Said("b", SECOND), Said("c", TIE)], raters, PARAMETERS)

    def shown(d: float, cut: float) -> float:
        return float(norm.pdf(d, scale=3) * (1 - expit(d - cut) - expit(-d - cut)))

    cuts = {  # where the model's ties are as frequent as the rater's
        ties: brentq(lambda cut, ties=ties: quad(shown, -30, 30, args=(cut,))[0] - ties, 0, 20)
        for ties in (0.1, 0.2, 0.3)
    }

    def likely(d: float) -> float:
        one = 0.9 * expit(d - cuts[0.1]) + 0.1 * 0.45
        two = 0.4 * expit(-d - cuts[0.3]) + 0.6 * 0.35
        three = 0.7 * (1 - expit(d - cuts[0.2]) - expit(-d - cuts[0.2])) + 0.3 * 0.2
        return float(norm.pdf(d, scale=3) * one * two * three)

    def mean(of: Any, low: float = -30) -> float:
        return quad(lambda d: of(d) * likely(d), low, 30, limit=200)[0] / quad(likely, -30, 30, limit=200)[0]

    tie = mean(lambda d: 1 - expit(d - cuts[0.2]) - expit(-d - cuts[0.2]))
    first = mean(lambda d: expit(d - cuts[0.2]))
    assert found.tie[0, 1] == pytest.approx(tie, abs=2e-4)
    assert found.preference[0, 1] == pytest.approx(first + tie / 2, abs=2e-4)
    assert found.sure[0, 1] == pytest.approx(mean(lambda d: 1.0, low=0.0), abs=5e-4)
    assert found.ranks == [1, 2]


def test_a_ranking_is_what_choix_gives() -> None:
    # choix 0.4.1: ep_pairwise(4, the six pairs of ranks 1, 2, 3, 4, alpha=1/1.5², model="logit"): differences of the
    # posterior means, and their variances. Two raters of reliability 1 who say the same count as that one (2/k = 1/2).
    raters: dict[str, float | Rater] = dict.fromkeys("ab", Rater(1.0, (1.0, 1.0), 9, 1e-9))
    parameters = Parameters(spread=1.5 * 2**0.5, reliability=1.0, ties=1e-9, strong=(0.6, 0.25))
    found = posterior([Said("a", [1, 2, 3, 4]), Said("b", [1, 2, 3, 4])], raters, parameters)
    means = {(0, 1): 0.970695, (0, 2): 1.893848, (0, 3): 2.864543, (1, 2): 0.923153}
    variances = {(0, 1): 2.003605, (0, 2): 2.096772, (0, 3): 2.304645, (1, 2): 1.905780}
    for (i, j), mean in means.items():
        sd = variances[i, j] ** 0.5
        reliable = quad(lambda d, mean=mean, sd=sd: expit(d) * norm.pdf(d, mean, sd), -20, 20)[0]
        assert found.preference[i, j] == pytest.approx(reliable, abs=2e-3)
    assert found.ranks == [1, 2, 3, 4]


def test_what_a_rater_says_at_a_difference() -> None:
    """Rao and Kupper's model: P(first) / P(second) is that of Bradley and Terry beyond the cut; habit has no side."""
    own, habit = tables(np.array([0.02, 0.2, 0.7]), 3.0, (0.6, 0.25))
    weights = np.exp(-(np.linspace(-4.8, 4.8, 49) ** 2) / 2)
    weights /= weights.sum()
    for code in range(9):  # either is given as often by judgement, over all differences, as by habit
        assert own[code] @ weights == pytest.approx(habit[code], abs=2e-3)
    assert own[[0, 4, 8]].sum(axis=0) == pytest.approx(np.ones((3, 49)))
    assert own[1:4].sum(axis=0) == pytest.approx(own[0]) and own[5:8].sum(axis=0) == pytest.approx(own[8])
    assert habit[4] == pytest.approx([0.02, 0.2, 0.7])
    middle = own[:, :, 24]
    assert middle[8] == pytest.approx(middle[0]) and own[8, 0, -1] > 0.999


def test_what_is_expected_of_an_answer_comes_from_the_others() -> None:
    items, _ = simulated(30, 3, [0.8] * 6)
    found = fit(items)
    reliable = Rater(1.0, (1.0, 1.0), 9, found.parameters.ties)
    coin = Rater(0.0, (0.0, 0.0), 9, 0.2)
    for name in ("r0", "r1"):
        for item, likely in zip(
            items, expected(items, found._replace(raters={**found.raters, name: reliable})), strict=True
        ):
            for said, ((first, tie, second),) in zip(item, likely, strict=True):
                assert first + tie + second == pytest.approx(1)
                if said.rater == name:
                    rest = [one for one in item if one.rater != name]
                    others = posterior(rest, found.raters, found.parameters)
                    assert first + tie / 2 == pytest.approx(others.preference[0, 1], abs=1e-6)
                    assert tie == pytest.approx(others.tie[0, 1], abs=1e-6)
    likely = expected([items[0]], found._replace(raters=dict.fromkeys(found.raters, coin)))[0]
    assert all(one[0] == pytest.approx([0.4, 0.2, 0.4]) for one in likely)
    for item, told in zip(items, expected(items, found), strict=True):
        who = found.raters[item[0].rater]
        judged = posterior(item[1:], found.raters, found.parameters._replace(ties=who.ties))
        half, even = judged.tie[0, 1] / 2, (1 - who.ties) / 2
        sides = [judged.preference[0, 1] - half, 2 * half, judged.preference[1, 0] - half]
        mixed = who.reliability * np.array(sides) + (1 - who.reliability) * np.array([even, who.ties, even])
        assert told[0] == pytest.approx(mixed[None], abs=1e-9)


# What must hold


@st.composite
def crowds(draw: st.DrawFn) -> list[list[Said]]:
    items = []
    for _ in range(draw(st.integers(1, 4))):
        k = draw(st.integers(2, 4))
        raters = draw(st.lists(st.sampled_from("abcde"), unique=True, max_size=4))
        ranks = st.lists(st.integers(1, k), min_size=k, max_size=k)
        strength = st.one_of(st.none(), st.integers(0, 3))
        shown = st.one_of(st.none(), st.permutations(range(k)))
        items.append([Said(rater, draw(ranks), draw(strength), draw(shown)) for rater in raters])
    return items


@settings(max_examples=30, deadline=None)
@given(crowds(), st.randoms(use_true_random=False))
def test_order_of_answers_and_of_responses_does_not_matter(items: list[list[Said]], random: Any) -> None:
    turned, orders = [], []
    for item in items:
        k = len(item[0].ranks) if item else 0
        order = random.sample(range(k), k)
        orders.append(order)
        new = [
            Said(
                said.rater,
                [said.ranks[old] for old in order],
                said.strength,
                said.shown and [order.index(old) for old in said.shown],
            )
            for said in item
        ]
        turned.append(random.sample(new, len(new)))
    one, other = fit(items), fit(turned)
    assert one.parameters == other.parameters
    assert one.raters == other.raters
    for before, after, order in zip(one.items, other.items, orders, strict=True):
        at = np.ix_(order, order)
        assert (before.preference[at] == after.preference).all() and (before.sure[at] == after.sure).all()
        assert (before.tie[at] == after.tie).all() and before.weight == after.weight
        assert [before.ranks[old] for old in order] == after.ranks


@settings(max_examples=40, deadline=None)
@given(crowds())
def test_numbers_are_what_they_say(items: list[list[Said]]) -> None:
    found = fit(items)
    for item, one in zip(items, found.items, strict=True):
        assert one.preference + one.preference.T == pytest.approx(np.ones_like(one.preference))
        assert one.sure + one.sure.T == pytest.approx(np.ones_like(one.sure))
        assert ((one.preference - one.tie / 2)[~np.eye(len(one.ranks), dtype=bool)] > 0).all()
        assert 0 <= one.weight <= 1 and (one.ranks == [] or min(one.ranks) == 1)
        again = posterior(item, found.raters, found.parameters)
        assert again.preference == pytest.approx(one.preference) and again.ranks == one.ranks
    for rater in found.raters.values():
        low, high = rater.interval
        assert 0 <= low <= rater.reliability <= high <= 1 and 0 < rater.ties < 1


def test_an_item_says_the_same_alone_and_among_others() -> None:
    lone, others = [Said("a", [1, 2, 3, 4])], [Said(name, [1, 1, 1, 1]) for name in "abc"]
    found = fit([lone, others, others])
    among, alone = found.items[0].preference, posterior(lone, found.raters, found.parameters).preference
    assert (alone == among).all()
    # What lies further apart in a ranking is surer, also of a single rater, whose answer narrows no difference.
    assert 0.5 < alone[0, 1] < alone[0, 2] < alone[0, 3] and alone[1, 2] < alone[1, 3]


def test_one_answer_is_neither_certain_nor_nothing() -> None:
    found = fit([[Said("a", FIRST)]])
    assert 0.7 < found.items[0].preference[0, 1] < 0.85 and 0.2 < found.items[0].weight < 0.5
    assert found.raters["a"].reliability == pytest.approx(found.parameters.reliability, abs=1e-6)  # nothing is learnt
    low, high = found.raters["a"].interval
    assert low < 0.3 and high > 0.98
    preferences = [fit([[Said(name, FIRST) for name in "abcde"[:n]]]).items[0].preference[0, 1] for n in range(1, 6)]
    assert preferences == sorted(preferences) and preferences[-1] > 0.9


def test_no_answers_at_all() -> None:
    assert fit([]) == Fit({}, [], fit([]).parameters)
    assert fit([[]]).items[0].ranks == [] and fit([[]]).items[0].preference.shape == (0, 0)


def test_a_stronger_answer_says_more() -> None:
    preferences = [fit([[Said("a", FIRST, strength)]]).items[0].preference[0, 1] for strength in (1, 2, 3)]
    assert preferences == sorted(preferences) and preferences[0] > 0.5
    # Of a ranking the strength is about the best over the second.
    slight, much = (fit([[Said("a", [2, 1, 3], strength)]]).items[0].preference for strength in (1, 3))
    assert much[1, 0] > slight[1, 0] + 0.05


def test_ties() -> None:
    everybody = fit([[Said(name, TIE) for name in "abc"]] * 10)
    assert everybody.items[0].ranks == [1, 1] and everybody.items[0].preference[0, 1] == 0.5
    assert everybody.items[0].tie[0, 1] > 0.8
    rare = fit([[Said(name, TIE) for name in "abc"]] + [[Said(name, FIRST) for name in "abc"]] * 30)
    assert rare.items[0].ranks == [1, 1] and rare.items[1].ranks == [1, 2]
    split = fit([[Said("a", FIRST), Said("b", SECOND)]])
    assert split.items[0].preference[0, 1] == 0.5


def test_rankings_with_ties_and_cycles() -> None:
    cycle = [Said("a", [1, 2, 3]), Said("b", [3, 1, 2]), Said("c", [2, 3, 1])]
    found = fit([cycle]).items[0]
    assert found.preference[0, 1] == found.preference[1, 2] == found.preference[2, 0] < 0.55  # two of three say so
    best = fit([[Said(name, [2, 1, 2, 2]) for name in "abc"]]).items[0]
    assert best.ranks[1] == 1 and min(best.ranks[0], best.ranks[2], best.ranks[3]) == 2
    for order in permutations(range(3)):
        ranks = [order.index(place) + 1 for place in range(3)]
        assert fit([[Said(name, ranks) for name in "abcd"]]).items[0].ranks == ranks


def test_bad_answers_are_refused() -> None:
    for item, message in (
        ([Said("a", [1, 2]), Said("b", [1, 2, 3])], "item 0: rank lists of lengths"),
        ([Said("a", [1])], "at least 2"),
        ([Said("a", [1, 2]), Said("a", [2, 1])], "a rater answers it twice"),
    ):
        with pytest.raises(ValueError, match=message):
            fit([item])


# Raters


def test_reliabilities_are_recovered() -> None:
    truth = np.linspace(0, 1, 20).tolist()
    items, scores = simulated(1500, 5, truth)
    found = fit(items)
    learnt = np.array([found.raters[f"r{number}"].reliability for number in range(20)])
    assert np.corrcoef(learnt, truth)[0, 1] > 0.95 and np.abs(learnt - truth).mean() < 0.09
    held = [
        low <= real <= high
        for real, (low, high) in ((real, found.raters[f"r{n}"].interval) for n, real in enumerate(truth))
    ]
    assert sum(held[1:-1]) >= 15
    assert found.parameters.spread == pytest.approx(3, abs=0.7) and found.parameters.ties == pytest.approx(
        0.1, abs=0.02
    )
    right = np.array([one.preference[0, 1] > 0.5 for one in found.items]) == (scores[:, 0] > scores[:, 1])
    votes = np.array([sum(said.ranks[1] - said.ranks[0] for said in item) for item in items])
    majority = np.where(votes == 0, 0.5, (votes > 0) == (scores[:, 0] > scores[:, 1]))
    assert right.mean() > majority.mean() + 0.02


def test_preferences_are_calibrated() -> None:
    items, scores = simulated(3000, 3, [0.9, 0.9, 0.7, 0.7, 0.5, 0.2], seed=2)
    told = np.array([one.preference[0, 1] for one in fit(items).items])
    reliable = 1 / (1 + np.exp(scores[:, 1] - scores[:, 0]))  # what such a rater would say, nearly: ties are halves
    for low, high in ((0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1)):
        some = (told >= low) & (told < high)
        assert told[some].mean() == pytest.approx(reliable[some].mean(), abs=0.05)


def test_spammers_are_found_and_nobody_else() -> None:
    truth = [0.8] * 12 + [0.5] * 4 + [0.0] * 4
    items, _ = simulated(500, 4, truth, seed=1)
    named = {name for name, rater in fit(items).raters.items() if spammer(rater)["is"]}
    assert named == {"r16", "r17", "r18", "r19"}


def test_a_spammer_is_named_with_evidence() -> None:
    coin = Rater(0.1, (0.01, 0.4), 12, 0.1)
    assert spammer(coin) == {"value": 0.1, "interval": [0.01, 0.4], "n": 12, "is": True}
    for other in (coin._replace(answers=9), coin._replace(reliability=0.3), coin._replace(interval=(0.06, 0.4))):
        assert not spammer(other)["is"]


def test_who_is_against_everybody_counts_for_nothing() -> None:
    items, _ = simulated(200, 4, [0.9] * 6)
    contrary = [
        [*item, Said("contrary", [3 - rank if max(item[0].ranks) > 1 else rank for rank in item[0].ranks])]
        for item in items
    ]
    found = fit(contrary)
    assert found.raters["contrary"].reliability < 0.1
    with_them, without = found.items[0], fit(items).items[0]
    assert with_them.preference == pytest.approx(without.preference, abs=0.05)


def test_who_likes_the_first_one_is_believed_when_they_take_the_other() -> None:
    rng = np.random.default_rng(3)
    items, scores = simulated(600, 4, [0.8] * 8, seed=3)
    lazy = []  # half of the time they take what is shown first
    for item, score in zip(items, scores, strict=True):
        shown = [0, 1] if rng.random() < 0.5 else [1, 0]
        better = int(score.argmax()) if rng.random() < 0.5 else shown[0]
        lazy.append([*item, Said("lazy", [2, 1] if better else [1, 2], None, shown)])
    found = fit(lazy)
    rater = found.raters["lazy"]
    assert rater.first > 0.6 and 0.3 < rater.reliability < 0.7
    as_shown, other = (
        posterior([Said("lazy", FIRST, None, shown)], found.raters, found.parameters).preference[0, 1]
        for shown in ([0, 1], [1, 0])
    )
    assert 0.5 < as_shown < other - 0.1
    assert found.raters["r0"].first == 0  # nothing is known of where theirs stood


def test_known_answers_anchor_reliability() -> None:
    """Three who agree are outvoted by what is known to be right."""
    items = [[Said("a", FIRST), Said("b", FIRST), Said("c", FIRST), Said("d", SECOND)] for _ in range(30)]
    alone = fit(items)
    assert alone.raters["a"].reliability > 0.8 > 0.2 > alone.raters["d"].reliability
    checked = fit(items, {number: SECOND for number in range(20)})
    assert checked.raters["d"].reliability > 0.8 > 0.2 > checked.raters["a"].reliability
    assert checked.items[0].ranks == [2, 1] and checked.items[-1].ranks == [2, 1]
    assert fit([[]], {0: [2, 1, 3]}).items[0].ranks == [2, 1, 3]


def test_rankings_tell_of_raters_too() -> None:
    items, scores = simulated(400, 4, [0.9, 0.9, 0.9, 0.9, 0.9, 0.0], k=4)
    found = fit(items)
    assert found.raters["r5"].reliability < 0.15 < 0.6 < min(found.raters[f"r{n}"].reliability for n in range(5))
    best = [
        one.preference.sum(axis=1).argmax() == score.argmax() for one, score in zip(found.items, scores, strict=True)
    ]
    assert np.mean(best) > 0.7


def test_it_is_quick() -> None:
    items, _ = simulated(2000, 3, [0.8] * 50)
    began = time.process_time()
    found = fit(items)
    assert time.process_time() - began < 3
    began = time.process_time()
    for item in items[:100]:
        posterior(item, found.raters, found.parameters)
    assert (time.process_time() - began) / 100 < 0.005
