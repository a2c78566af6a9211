"""Measures of how varied texts are, against numbers by hand, scipy, rouge-score, and plain counting."""

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from preferences.stats.texts import (
    common_subsequence,
    distinct,
    distinct_without_each,
    jackknife,
    ngram_counts,
    repetition,
    rouge_l,
    self_similarity,
    self_similarity_without_each,
    words,
)

TEXTS = st.lists(st.lists(st.sampled_from("abcd"), max_size=8), min_size=3, max_size=6)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Don't stop, snake_case!", ["don", "'", "t", "stop", ",", "snake", "_", "case", "!"]),
        ("你好，世界 GPT-4", ["你", "好", "，", "世", "界", "gpt", "-", "4"]),
        ("ภาษา", ["ภ", "า", "ษ", "า"]),
        ("हिन्दी है", ["हिन्दी", "है"]),
        ("مُعلِّم Größe café", ["مُعلِّم", "größe", "café"]),
        (" \n", []),
    ],
)
def test_words(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_repetition_by_hand() -> None:
    """a b a b a b: of bigrams ab ba ab ba ab two are distinct; of 4-grams abab baba abab two of three."""
    assert repetition(list("ababab"), 2) == pytest.approx(1 - 2 / 5)
    assert repetition(list("ababab")) == pytest.approx(1 - 2 / 3)
    assert repetition(list("abc")) == repetition([]) == 0.0
    assert repetition(words("!!!!!!!!")) == pytest.approx(1 - 1 / 5)
    assert repetition(words("one two three four five")) == 0.0


def test_distinct_by_hand() -> None:
    """Unigrams a a b and a c: 3 distinct of 5. Of two of them, both are a in 3 of the 10 draws, else 2 are distinct."""
    counts = ngram_counts([list("aab"), list("ac")], 1)
    assert counts.toarray().tolist() == [[2, 1, 0], [1, 0, 1]]
    assert distinct(counts, 5) == pytest.approx(3 / 5)
    assert distinct(counts, 2) == pytest.approx((3 * 1 + 7 * 2) / 10 / 2)
    assert distinct(counts, 1) == pytest.approx(1.0)
    for wrong in (0, 6):
        with pytest.raises(ValueError, match="at least 1 and no more than there are"):
            distinct(counts, wrong)


@given(TEXTS, st.integers(1, 2), st.data())
def test_distinct_is_the_mean_over_draws(texts: list[list[str]], n: int, data: st.DataObject) -> None:
    """scipy's hypergeometric distribution says how likely an n-gram is not to be drawn."""
    counts = ngram_counts(texts, n)
    grams = Counter(gram for said in texts for gram in zip(*(said[k:] for k in range(n)), strict=False))
    total = sum(grams.values())
    if not total:
        return
    size = data.draw(st.integers(1, total))
    expected = sum(1 - hypergeom(total, often, size).pmf(0) for often in grams.values()) / size
    assert distinct(counts, size) == pytest.approx(expected)
    assert distinct(counts, total) == pytest.approx(len(grams) / total)


def test_distinct_does_not_fall_with_length() -> None:
    """The same source, three times as long: plain distinct-2 falls, of equally many n-grams it stays.

    Of V = 100² equally likely bigrams m draws find about V (1 - e^(-m/V)).
    """
    chance = np.random.default_rng(0)
    source = [str(word) for word in range(100)]
    short = ngram_counts([chance.choice(source, 30).tolist() for _ in range(100)], 2)
    long = ngram_counts([chance.choice(source, 90).tolist() for _ in range(100)], 2)
    size = int(short.sum())
    assert distinct(short, size) == pytest.approx(1e4 * -math.expm1(-0.29) / 2900, rel=0.02)  # 0.87
    assert distinct(long, int(long.sum())) == pytest.approx(1e4 * -math.expm1(-0.89) / 8900, rel=0.02)  # 0.66
    assert distinct(long, size) == pytest.approx(distinct(short, size), rel=0.02)


@settings(deadline=None)
@given(TEXTS, st.integers(1, 2))
def test_without_each_is_what_the_rest_has(texts: list[list[str]], n: int) -> None:
    counts = ngram_counts(texts, n)
    rests = [[text for number, text in enumerate(texts) if number != left] for left in range(len(texts))]
    likeness = [self_similarity(ngram_counts(rest, n)) for rest in rests]
    np.testing.assert_allclose(self_similarity_without_each(counts), likeness, atol=1e-12)
    size = int(min(ngram_counts(rest, n).sum() for rest in rests))
    if size:
        values = [distinct(ngram_counts(rest, n), size) for rest in rests]
        np.testing.assert_allclose(distinct_without_each(counts, size), values, atol=1e-9)


def test_self_similarity_by_hand() -> None:
    """Sets {a, b}, {b, c}, {d}: 1 / √(2 · 2), 0 and 0 over three pairs. Twice the same text is 1; how often doesn't
    count.
    """
    assert self_similarity(ngram_counts([list("abb"), list("bc"), list("d")], 1)) == pytest.approx(0.5 / 3)
    assert self_similarity(ngram_counts([list("ab")] * 4, 2)) == pytest.approx(1.0)
    assert self_similarity(ngram_counts([[], [], list("ab")], 1)) == 0.0
    with pytest.raises(ValueError, match="a pair needs two"):
        self_similarity(ngram_counts([list("ab")], 1))


@given(TEXTS)
def test_self_similarity_is_the_mean_over_pairs(texts: list[list[str]]) -> None:
    sets = [set(text) for text in texts]
    pairs = [len(a & b) / math.sqrt(len(a) * len(b)) if a and b else 0.0 for a, b in combinations(sets, 2)]
    assert self_similarity(ngram_counts(texts, 1)) == pytest.approx(sum(pairs) / len(pairs))


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    """1 2 3 6: mean 3, s = √(14/3), standard error s / 2; t_3 at 97.5% is 3.182446 (tables)."""
    values = np.array([1.0, 2.0, 3.0, 6.0])
    found = jackknife(3.0, (values.sum() - values) / 3)
    error = math.sqrt(14 / 3) / 2
    assert found["standard_error"] == pytest.approx(error)
    assert found["interval"] == pytest.approx([3 - 3.182446 * error, 3 + 3.182446 * error], rel=1e-6)
    with pytest.raises(ValueError, match="a spread needs two"):
        jackknife(1.0, np.array([1.0]))


@pytest.mark.parametrize(
    ("candidate", "reference", "score"),
    [
        ("The quick brown fox jumps over the lazy dog", "The quick brown dog jumps on the log.", 0.5882352941176471),
        ("police kill the gunman", "police killed the gunman", 0.75),
        ("the gunman kill police", "police killed the gunman", 0.5),
        ("Don't panic! It's 42, isn't it?", "It isn't 42; don't ask.", 0.375),
        ("a b c a b c b a", "c b a b a c", 0.5714285714285715),
        ("Paris", "Paris is the capital of France.", 0.2857142857142857),
    ],
)
def test_rouge_l_is_that_of_rouge_score(candidate: str, reference: str, score: float) -> None:
    """Computed by rouge-score 0.1.2, without a stemmer; the second and third are Lin's own example, without β."""
    assert rouge_l(words(candidate, marks=False), words(reference, marks=False)) == pytest.approx(score)


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_common_subsequence_is_the_table_of_the_textbook(one: list[str], other: list[str]) -> None:
    table = np.zeros((len(one) + 1, len(other) + 1), dtype=int)
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table[i + 1, j + 1] = table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
    assert common_subsequence(one, other) == table[-1, -1]
    assert rouge_l(one, []) == rouge_l([], one) == 0.0
