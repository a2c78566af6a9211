"""Dawid and Skene's own example: what they published, and what crowd-kit gives."""

import numpy as np
import pytest

from preferences.stats.dawid_skene import dawid_skene

# Table 1: 45 patients; classes by observer 1 (three times), 2, 3, 4, 5.
TABLE = """
1111111 3334343 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444 2223343 1111111 2223212 1211111
1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222 1111111 1111111 2322222 1111111 1111111 1121121
1111111 3333233 1111111 2222222 2223232 4334343 2212232 2323233 3333432 1111111 1111111 1212111 2322222 1211111 2222222
"""
SAID = np.array([[int(letter) - 1 for letter in patient] for patient in TABLE.split()])
RATER = np.tile([0, 0, 0, 1, 2, 3, 4], (45, 1))
ITEM = np.tile(np.arange(45)[:, None], (1, 7))


def test_it_gives_what_dawid_and_skene_published() -> None:
    found = dawid_skene(ITEM.ravel(), RATER.ravel(), SAID.ravel(), 4)
    # To two decimals: the marginals of the classes, and the error rates of observer 1 for the first three of them.
    assert found.marginals == pytest.approx([0.40, 0.42, 0.11, 0.07], abs=0.005)
    published = np.array([[0.89, 0.11, 0.00, 0.00], [0.07, 0.88, 0.05, 0.00], [0.00, 0.34, 0.66, 0.00]])
    assert found.errors[0, :3] == pytest.approx(published, abs=0.005)


def test_it_gives_what_crowd_kit_gives() -> None:
    # crowd-kit 1.4.2, DawidSkene(n_iter=500, tol=1e-9), on each observer's first answers.
    first = [0, 3, 4, 5, 6]
    found = dawid_skene(ITEM[:, first].ravel(), RATER[:, first].ravel(), SAID[:, first].ravel(), 4)
    assert found.marginals == pytest.approx([0.399963, 0.412612, 0.120759, 0.066667], abs=2e-6)
    second = [[0.833354, 0.166646, 0, 0], [0.053913, 0.646324, 0.299763, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert found.errors[1] == pytest.approx(np.array(second), abs=2e-6)


def test_a_class_that_nobody_says_and_a_rater_with_a_prior() -> None:
    found = dawid_skene(np.array([0, 1]), np.array([0, 0]), np.array([0, 1]), 3, prior=0.5)
    assert found.classes.sum(axis=1) == pytest.approx([1, 1]) and found.marginals[2] == 0
    assert (found.errors > 0).all() and found.errors.sum(axis=2) == pytest.approx(np.ones((1, 3)))
