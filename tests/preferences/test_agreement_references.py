"""Agreement against the krippendorff package, statsmodels, scipy, and what others have published; to 1e-9."""

import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from preferences.stats.agreement import agreement, agreement_in_parts
from preferences.stats.coefficients import kendall_w, tau_b
from preferences.stats.units import pair_values

krippendorff = pytest.importorskip("krippendorff")
inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
PANDALM = Path(__file__).parents[3] / "shared/data/pandalm-testset-v1/testset-v1.json"
RANKS = {1: [1, 2], 2: [2, 1], 0: [1, 1]}  # a verdict on two responses, as ranks
LEVELS = ("nominal", "ordinal", "interval")
_ = None


def of_table(table):
    """The coefficients of a table raters x units of ratings; None = no answer."""
    units = [[[row[u]] for row in table if row[u] is not None] for u in range(len(table[0]))]
    items = [[[1, 2]] * len(unit) for unit in units]
    return agreement_in_parts(items, ratings={"d": units}, resamples=1)["dimensions"][0]


def test_krippendorffs_own_examples():
    """Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability": A binary, B nominal, C with missing values."""
    meg, owen = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert of_table([meg, owen])["krippendorff_alpha_nominal"] == pytest.approx(0.095, abs=5e-4)
    ben, gerry = [1, 1, 2, 2, 4, 3, 3, 3, 5, 4, 4, 1], [2, 1, 2, 2, 2, 3, 3, 3, 5, 4, 4, 4]
    assert of_table([ben, gerry])["krippendorff_alpha_nominal"] == pytest.approx(0.692, abs=5e-4)
    four = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
        [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
    ]
    found = of_table(four)
    for level, published in zip(LEVELS, (0.743, 0.815, 0.849), strict=True):
        assert found[f"krippendorff_alpha_{level}"] == pytest.approx(published, abs=5e-4)


def test_fleiss_kappa_of_the_usual_example():
    """Ten subjects, fourteen raters, five values: 0.210 (Wikipedia, "Fleiss' kappa"; statsmodels tests the same)."""
    rows = ["0 0 0 0 14", "0 2 6 4 2", "0 0 3 5 6", "0 3 9 2 0", "2 2 8 1 1"]
    rows += ["7 7 0 0 0", "3 2 6 3 0", "2 5 3 2 2", "6 5 2 1 0", "0 2 2 3 7"]
    counts = [[int(number) for number in row.split()] for row in rows]
    units = [[value for value, times in enumerate(row) for _ in range(times)] for row in counts]
    kappa = of_table(np.array(units).T.tolist())["fleiss_kappa"]
    assert kappa == pytest.approx(0.210, abs=5e-4)
    assert kappa == pytest.approx(inter_rater.fleiss_kappa(np.array(counts)), abs=1e-9)


VALUES = st.one_of(st.none(), st.sampled_from([0.5, 1.0, 2.0, 3.5, 7.0]))
TABLES = st.integers(2, 5).flatmap(
    lambda raters: st.integers(1, 9).flatmap(
        lambda units: st.lists(st.lists(VALUES, min_size=units, max_size=units), min_size=raters, max_size=raters)
    )
)


@given(TABLES)
def test_alphas_of_ratings_with_missing_values(table):
    found = of_table(table)
    units = [[value for value in unit if value is not None] for unit in zip(*table, strict=True)]
    paired = {value for unit in units if len(unit) >= 2 for value in unit}
    for level in LEVELS:
        mine = found[f"krippendorff_alpha_{level}"]
        if len(paired) < 2:
            assert mine is None
            continue
        data = [[np.nan if value is None else value for value in row] for row in table]
        other = krippendorff.alpha(reliability_data=data, level_of_measurement=level)
        assert mine == pytest.approx(other, abs=1e-9)


def ranked(k):
    return st.lists(st.integers(1, k), min_size=k, max_size=k)


ITEMS = st.lists(st.integers(2, 4).flatmap(lambda k: st.lists(ranked(k), max_size=4)), min_size=1, max_size=8)


@given(ITEMS)
def test_alphas_of_rankings_with_ties_and_any_number_of_answers(items):
    """The units written out in plain Python."""
    counts = []
    for answers in items:
        for i, j in combinations(range(len(answers[0])) if answers else (), 2):
            said = Counter((ranks[j] > ranks[i]) - (ranks[j] < ranks[i]) for ranks in answers)
            counts.append([said[side] for side in (-1, 0, 1)])
    paired = [row for row in counts if sum(row) >= 2]
    mirrored = paired + [row[::-1] for row in paired]
    found = agreement(items, resamples=1)
    assert found["units"] == len(paired)
    names = {f"krippendorff_alpha_{level}": (paired, level) for level in LEVELS}
    for name, (rows, level) in {**names, "krippendorff_alpha_symmetrised": (mirrored, "nominal")}.items():
        if sum(any(row[side] for row in rows) for side in range(3)) < 2:
            assert found[name] is None
        else:
            other = krippendorff.alpha(value_counts=rows, value_domain=[-1, 0, 1], level_of_measurement=level)
            assert found[name] == pytest.approx(other, abs=1e-9)


@given(st.integers(2, 5).flatmap(lambda m: st.lists(st.lists(ranked(3), min_size=m, max_size=m), min_size=1)))
def test_fleiss_kappa_where_all_items_have_as_many_answers(items):
    values = pair_values(np.array(items)).transpose(0, 2, 1).reshape(-1, len(items[0]))  # (units, raters)
    counts = np.stack([(values == side).sum(axis=1) for side in (-1, 0, 1)], axis=1)
    mine = agreement(items, resamples=1)["fleiss_kappa"]
    if (counts.sum(axis=0) > 0).sum() < 2:
        assert mine is None
    else:
        assert mine == pytest.approx(inter_rater.fleiss_kappa(counts), abs=1e-9)


def table_of(first, second):
    return np.array(
        [[sum(a == x and b == y for a, b in zip(first, second, strict=True)) for y in RANKS] for x in RANKS]
    )


@given(st.lists(st.lists(st.sampled_from([0, 1, 2, None]), min_size=3, max_size=3), min_size=20, max_size=60))
def test_cohens_kappa_of_every_pair_of_raters_and_their_mean(rows):
    """Three raters, each of whom has answered some of the items only."""
    given_ = [[(name, value) for name, value in zip("abc", row, strict=True) if value is not None] for row in rows]
    items, raters = [[RANKS[v] for _, v in row] for row in given_], [[name for name, _ in row] for row in given_]
    found = agreement_in_parts(items, raters, resamples=1)
    expected = {}
    for one, other in combinations(range(3), 2):
        shared = [(row[one], row[other]) for row in rows if None not in (row[one], row[other])]
        if len(shared) >= 20:
            with np.errstate(invalid="ignore"):
                kappa = inter_rater.cohens_kappa(table_of(*zip(*shared, strict=True)), return_results=False)
            expected["abc"[one], "abc"[other]] = (len(shared), None if np.isnan(kappa) else kappa)
    mine = {tuple(pair["raters"]): (pair["units"], pair["kappa"]) for pair in found["rater_pairs"]}
    assert mine.keys() == expected.keys()
    for pair, (units, kappa) in expected.items():
        assert mine[pair][0] == units
        assert mine[pair][1] == (None if kappa is None else pytest.approx(kappa, abs=1e-9))
    known = [kappa for _, kappa in expected.values() if kappa is not None]
    mean = found["agreement"]["cohen_kappa"]
    assert mean == (pytest.approx(np.mean(known), abs=1e-9) if known else None)


@given(st.lists(st.lists(st.sampled_from([0, 1, 2]), min_size=3, max_size=3), min_size=2, max_size=30))
def test_a_rater_against_the_others_is_schoutens_index(rows):
    """Where all have answered all: (Σ p - Σ p_e) / (number of others - Σ p_e), of the tables with each other rater."""
    found = agreement_in_parts([[RANKS[v] for v in row] for row in rows], [list("abc")] * len(rows), resamples=1)
    for rater in range(3):
        observed = expected = 0.0
        for other in {0, 1, 2} - {rater}:
            table = table_of([row[rater] for row in rows], [row[other] for row in rows]) / len(rows)
            observed += np.trace(table)
            expected += (table.sum(axis=0) * table.sum(axis=1)).sum()
        mine = found["raters"]["abc"[rater]]
        assert mine["raw"] == pytest.approx(observed / 2, abs=1e-9)
        if expected < 2 - 1e-9:
            assert mine["kappa"] == pytest.approx((observed - expected) / (2 - expected), abs=1e-9)
        else:
            assert mine["kappa"] is None


@given(st.integers(2, 5), st.integers(3, 6), st.data())
def test_kendalls_w_and_tau_b_against_scipy(m, k, data):
    from scipy.stats import friedmanchisquare, kendalltau

    ranks = data.draw(st.lists(ranked(k), min_size=m, max_size=m))
    assume(any(len(set(one)) > 1 for one in ranks))
    if m > 2:
        with np.errstate(invalid="ignore", divide="ignore"):  # W = chi² / (m (k - 1)), chi² corrected for ties
            chi2 = friedmanchisquare(*np.array(ranks).T).statistic
        assert kendall_w(np.array([ranks]))[0] == pytest.approx(chi2 / (m * (k - 1)), abs=1e-9)
    expected = [kendalltau(one, other).statistic for one, other in combinations(ranks, 2)]
    np.testing.assert_allclose(tau_b(pair_values(np.array([ranks])))[0], expected, atol=1e-9)


@pytest.mark.skipif(not PANDALM.exists(), reason="the PandaLM test set is not there")
def test_pandalms_published_kappas():
    """Pairs of PandaLM's three annotators: 0.852, 0.879, 0.862."""
    rows = json.loads(PANDALM.read_text())
    names = ["annotator1", "annotator2", "annotator3"]
    found = agreement_in_parts([[RANKS[row[name]] for name in names] for row in rows], [names] * len(rows))
    kappas = {tuple(name[-1] for name in pair["raters"]): pair for pair in found["rater_pairs"]}
    for pair, published in {("1", "2"): 0.852, ("1", "3"): 0.879, ("2", "3"): 0.862}.items():
        table = table_of(*([row[f"annotator{number}"] for row in rows] for number in pair))
        mine = kappas[pair]
        assert mine["kappa"] == pytest.approx(published, abs=5e-4) and mine["units"] == 999
        assert mine["kappa"] == pytest.approx(inter_rater.cohens_kappa(table, return_results=False), abs=1e-9)
        low, high = mine["kappa_interval"]
        assert low == pytest.approx(mine["kappa"] - 0.03, abs=0.015) and high == pytest.approx(
            mine["kappa"] + 0.03, abs=0.015
        )
    facts = found["agreement"]
    assert facts["cohen_kappa"] == pytest.approx(0.864, abs=5e-4) and facts["cohen_kappa_pairs"] == 3
    counts = [[list(row[name] for name in names).count(value) for value in (2, 0, 1)] for row in rows]
    assert facts["fleiss_kappa"] == pytest.approx(inter_rater.fleiss_kappa(np.array(counts)), abs=1e-9)
    for level in LEVELS:
        other = krippendorff.alpha(value_counts=counts, value_domain=[-1, 0, 1], level_of_measurement=level)
        assert facts[f"krippendorff_alpha_{level}"] == pytest.approx(other, abs=1e-9)
