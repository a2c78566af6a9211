"""All fields of a pair, and intervals over prompts and raters against statsmodels and by simulation."""

import json

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import binomtest, t

from preferences.stats.crossed import over_prompts_and_raters
from preferences.stats.intervals import exact_mean
from preferences.stats.pair import pair_fields
from preferences.stats.significance import sign_test


def asked(rng, prompts=40, raters=6, each=3, spread=0.0):
    """Cells of `each` raters on each prompt; `spread`: how far raters differ in what they like."""
    tastes = rng.normal(0, spread, raters)
    cells = []
    for prompt in range(prompts):
        for rater in rng.choice(raters, each, replace=False):
            liked = rng.random() < 1 / (1 + np.exp(-0.4 - tastes[rater]))
            cells.append((prompt, f"w{rater}", float(liked)))
    return cells


def means(cells, prompts):
    return [np.mean([value for prompt, _, value in cells if prompt == place]) for place in range(prompts)]


def test_the_error_over_prompts_and_raters_is_made_of_statsmodels_three():
    cells = asked(np.random.default_rng(0), spread=1.0)
    prompt, rater, y = (np.array(column) for column in zip(*cells, strict=True))
    raters = np.unique(rater, return_inverse=True)[1]

    def variance(**how):
        return float(sm.OLS(y.astype(float), np.ones(len(y))).fit(**how).cov_params()[0, 0])

    a = variance(cov_type="cluster", cov_kwds={"groups": prompt.astype(int)})
    share, by_rater = np.bincount(raters) / len(y), np.bincount(raters, y.astype(float) - y.astype(float).mean())
    b = ((by_rater / len(y)) ** 2 / (1 - share)).sum()
    theirs = variance(cov_type="cluster", cov_kwds={"groups": raters})
    assert b == pytest.approx(theirs, rel=0.02), "raters are nearly equally busy"
    c = variance(cov_type="HC0")
    worth = 1 / (share**2).sum()  # 5.9 of 6 raters
    ratio = t.ppf(0.975, worth - 1) / t.ppf(0.975, 39)
    found = over_prompts_and_raters(cells, 40)
    assert found is not None
    assert found[0] == pytest.approx(np.sqrt(max(a - c, 0) + b * ratio**2))
    assert found[1] == pytest.approx(exact_mean(y.astype(float).mean(), found[0], 40))
    assert found[0] > 1.2 * np.sqrt(a), "the error over prompts alone would pass, too"


def test_fewer_than_three_raters_say_nothing_of_others():
    cells = [(prompt, f"w{rater}", float(prompt % 2)) for prompt in range(30) for rater in range(2)]
    fields = pair_fields(means(cells, 30), cells=cells)
    alone = pair_fields(means(cells, 30))
    assert fields == {**alone, "raters": 2, "method": f"{alone['method']}, of these raters and no others"}


def test_intervals_over_prompts_and_raters_cover_where_those_over_prompts_do_not():
    # 400 studies of 100 prompts by 8 raters, who differ: 60% is liked on average over all people.
    rng = np.random.default_rng(1)
    truth = (1 / (1 + np.exp(-0.4 - rng.normal(0, 0.8, 1_000_000)))).mean()
    inside = alone = 0
    for _ in range(400):
        cells = asked(rng, prompts=100, raters=8, each=2, spread=0.8)
        values = means(cells, 100)
        (_, (low, high), _) = over_prompts_and_raters(cells, 100) or (0, (0, 0), "")
        inside += low <= truth <= high
        low, high = exact_mean(np.mean(values), np.std(values, ddof=1) / 10, 100)
        alone += low <= truth <= high
    assert 0.93 <= inside / 400 <= 0.995
    assert alone / 400 < 0.85


def test_raters_who_differ_are_seen_where_all_prompts_have_the_same_mean():
    cells = [(prompt, name, value) for prompt in range(200) for name, value in (("a", 1.0), ("b", 1.0), ("c", 0.0))]
    fields = pair_fields(np.full(200, 2 / 3), cells=cells)
    assert fields["method"].startswith("over prompts and raters")
    assert fields["interval"][0] < 0.1 and fields["interval"][1] > 0.99  # of three people one is against it
    same = pair_fields(np.ones(200), cells=[(prompt, name, 1.0) for prompt, name, _ in cells])
    assert same["interval"] == pair_fields(np.ones(200))["interval"]


def test_one_busy_rater_among_few_others_says_little_of_all_raters():
    # 300 studies of 200 prompts, one rater each; one of ten people gives three quarters of the verdicts.
    rng = np.random.default_rng(3)
    shares = np.array([30] + [1] * 9) / 39
    truth = (1 / (1 + np.exp(-0.4 - rng.normal(0, 0.8, 1_000_000)))).mean()
    inside = 0
    for _ in range(300):
        who = rng.choice(10, 200, p=shares)
        liked = rng.random(200) < 1 / (1 + np.exp(-0.4 - rng.normal(0, 0.8, 10)[who]))
        cells = [
            (prompt, f"w{rater}", float(value)) for prompt, (rater, value) in enumerate(zip(who, liked, strict=True))
        ]
        (_, (low, high), _) = over_prompts_and_raters(cells, 200) or (0, (0, 0), "")
        inside += low <= truth <= high
    assert inside / 300 >= 0.95
    alone = [(prompt, "busy" if prompt > 1 else f"w{prompt}", float(prompt % 2)) for prompt in range(200)]
    assert over_prompts_and_raters(alone, 200)[1] == pytest.approx([0, 1], abs=1e-6)


def test_a_rater_under_two_judges_names_is_one_rater():
    cells = asked(np.random.default_rng(4), spread=1.0)
    once = over_prompts_and_raters(cells, 40)
    twice = over_prompts_and_raters([*cells, *cells], 40)
    assert (once[0], *once[1]) == pytest.approx((twice[0], *twice[1]))


def test_where_people_judged_p_and_interval_say_the_same():
    rng = np.random.default_rng(9)
    seen = set()
    for spread in (0.0, 0.3, 1.0):
        for _ in range(15):
            cells = asked(rng, prompts=60, raters=5, spread=spread)
            fields = pair_fields(means(cells, 60), cells=cells, resamples=2)
            low, high = fields["interval"]
            assert (fields["p_value"] < 0.05) == (low > 0.5 or high < 0.5)
            assert fields["anytime_interval"][0] < low and high < fields["anytime_interval"][1]
            seen.add(fields["p_value"] < 0.05)
            if fields["p_value"] == 1.0:
                continue
            (edge_low, edge_high) = over_prompts_and_raters(cells, 60, 1 - fields["p_value"])[1]
            assert min(abs(edge_low - 0.5), abs(edge_high - 0.5)) < 1e-6 or fields["p_value"] == 1e-10
    assert seen == {True, False}
    even = [(prompt, f"w{rater}", float((prompt + rater) % 2)) for prompt in range(6) for rater in range(4)]
    assert pair_fields([0.5] * 6, cells=even)["p_value"] == 1.0
    one = [(prompt, f"w{rater}", 1.0 - (prompt == 0)) for prompt in range(60) for rater in range(5)]
    assert pair_fields(means(one, 60), cells=one)["p_value"] == 1e-10


def test_the_smallest_detectable_rate_knows_that_raters_differ():
    cells = asked(np.random.default_rng(0), spread=1.0)
    fields, alone = pair_fields(means(cells, 40), cells=cells), pair_fields(means(cells, 40))
    times = fields["standard_error"] / alone["standard_error"]
    lengths = dict(
        zip(("candidate_length", "baseline_length"), np.random.default_rng(1).integers(9, 99, (2, 40)), strict=True)
    )
    longer, alone_longer = (pair_fields(means(cells, 40), cells=by, **lengths) for by in (cells, None))
    errors = [one["length_controlled_standard_error"] for one in (longer, alone_longer)]
    assert errors[0] == pytest.approx(times * errors[1])
    assert times > 1.2 and fields["smallest_detectable"] - 0.5 == pytest.approx(
        times * (alone["smallest_detectable"] - 0.5)
    )


def test_many_small_wins_and_a_few_large_losses_are_no_evidence_of_a_win():
    values = [0.55] * 65 + [0.0] * 35
    fields = pair_fields(values)
    assert fields["win_rate"] == pytest.approx(0.3575) and fields["interval"][1] < 0.5
    assert binomtest(65, 100).pvalue < 0.01 and fields["p_value"] == 1.0
    assert pair_fields([0.45] * 65 + [0.0] * 35)["p_value"] == pytest.approx(2.0**-99)


@pytest.mark.parametrize("n", [20, 21, 36])
def test_with_ties_the_interval_may_exclude_one_half_at_a_p_of_seven_percent_and_never_the_other_way_round(n):
    highest = 0.0
    for ties in range(n):
        for wins in range((n - ties + 1) // 2, n - ties + 1):
            values = np.repeat([1.0, 0.5, 0.0], [wins, ties, n - ties - wins])
            excludes = exact_mean(values.mean(), values.std(ddof=1) / np.sqrt(n), n)[0] > 0.5
            p = sign_test(values)["p_value"]
            assert excludes or p >= 0.05
            highest = max(highest, p if excludes else 0.0)
    assert 0.05 <= highest <= 0.0704


def test_a_tie_up_to_rounding_is_a_tie():
    fields = pair_fields([0.5 + 1e-15] * 30 + [1.0])
    assert (fields["ties"], fields["p_value"]) == (30, 1.0)


def test_fields_are_complete_and_each_its_own():
    rng = np.random.default_rng(2)
    values = rng.choice([0.0, 0.5, 1.0], 60, p=[0.3, 0.2, 0.5])
    fields = pair_fields(values, candidate_length=rng.integers(10, 99, 60), baseline_length=rng.integers(10, 99, 60))
    json.dumps(fields, allow_nan=False)
    wins, losses = int((values == 1).sum()), int((values == 0).sum())
    assert fields["p_value"] == pytest.approx(binomtest(wins, wins + losses).pvalue)
    assert (fields["n"], fields["ties"]) == (60, 60 - wins - losses)
    assert fields["anytime_interval"][0] < fields["interval"][0] < fields["win_rate"] < fields["interval"][1]
    assert abs(fields["length_controlled_win_rate"] - fields["win_rate"]) < 0.02  # lengths say nothing here
    assert fields["length_controlled_standard_error"] == pytest.approx(fields["standard_error"], rel=0.1)
    assert fields["more_prompts"] is None and fields["interval"][0] > 0.5
    without = pair_fields(values)
    assert without["length_controlled_win_rate"] is without["length_controlled_standard_error"] is None
    assert pair_fields([1.0, 0.0, 1.0])["more_prompts"] > 0
    json.dumps(pair_fields([0.5]), allow_nan=False)
