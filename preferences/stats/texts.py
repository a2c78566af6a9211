"""How varied texts are: repetition within one, distinct n-grams and likeness over many, and ROUGE-L. Pure functions.

A model that has learnt too much from its reward often says the same to everybody (mode collapse), or the same over and
over. Both are counted in n-grams of words, in which a sign of a script without spaces (Chinese, Japanese, Thai, …) is
a word of its own.
"""

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import gammaln
from scipy.stats import t

Floats = NDArray[np.float64]

# Thai and Lao, Burmese, Khmer, kana, Han
_WIDE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# accents, vowel signs and points, which Python's \w leaves out
_SIGNS = "\u0300-\u036f\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"
_WORD = rf"[{_WIDE}]|(?:(?![{_WIDE}_])[\w{_SIGNS}])+"
_WORDS, _WORDS_AND_MARKS = re.compile(_WORD), re.compile(rf"{_WORD}|\S")


def words(text: str, *, marks: bool = True) -> list[str]:
    """The words of a text in lower case, and its punctuation marks, each a word of its own.

    Without marks, words of English text are those of Google's rouge-score without a stemmer: "Don't!" is don, t.
    """
    return (_WORDS_AND_MARKS if marks else _WORDS).findall(text.lower())


def repetition(said: Sequence[str], n: int = 4) -> float:
    """1 - distinct / all n-grams of one text, given as its words; 0 where it has none.

    With n = 4 this is seq-rep-4 of Welleck et al. 2020 ("Neural text generation with unlikelihood training",
    arXiv 1908.04319, section 6).
    """
    count = len(said) - n + 1
    if count < 1:
        return 0.0
    return 1 - len(set(zip(*(said[start : start + count] for start in range(n)), strict=True))) / count


def ngram_counts(texts: Sequence[Sequence[str]], n: int) -> Any:
    """How often each text (its words) has each n-gram that occurs: a sparse array (texts, n-grams) of float64."""
    numbers: dict[tuple[str, ...], int] = {}
    rows = [
        [numbers.setdefault(gram, len(numbers)) for gram in zip(*(said[start:] for start in range(n)), strict=False)]
        for said in texts
    ]
    columns = np.fromiter(chain.from_iterable(rows), dtype=np.int64)
    which = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    shape = (len(rows), len(numbers))
    counts = sparse.coo_array((np.ones(len(columns)), (which, columns)), shape=shape).tocsr()  # which adds up
    return counts


def distinct(counts: Any, size: int) -> float:
    """Distinct-n of `size` n-grams: the expected share of distinct ones among that many drawn without replacement
    from all texts together. counts: `ngram_counts`, with at least `size` n-grams (>= 1).

    Plain distinct-n (Li et al. 2016, arXiv 1510.03055, section 5) is the value at `size` = all n-grams. It falls with
    the length of texts, since new n-grams become rarer the more there are already, and so says little of models that
    write at different length. Drawing equally many from each makes them comparable: with N n-grams, of which the g-th
    occurs c_g times, Σ_g [1 - C(N - c_g, size) / C(N, size)] / size (rarefaction: Hurlbert 1971, Ecology 52(4)).
    """
    each = np.asarray(counts.sum(axis=0)).ravel()
    _check_size(each.sum(), size)
    kinds, often = np.unique(each, return_counts=True)
    return float((_seen(kinds, each.sum(), size) * often).sum() / size)


def distinct_without_each(counts: Any, size: int) -> Floats:
    """`distinct` of all texts but the i-th, (texts,); every rest must have at least `size` n-grams."""
    each = np.asarray(counts.sum(axis=0)).ravel()
    left = each.sum() - np.asarray(counts.sum(axis=1)).ravel()
    _check_size(left.min(), size)
    kinds, often = np.unique(each, return_counts=True)
    values: Floats = np.array([(_seen(kinds, total, size) * often).sum() for total in left])
    cells = counts.tocoo()
    before, totals = each[cells.col], left[cells.row]
    change = _seen(before - cells.data, totals, size) - _seen(before, totals, size)
    np.add.at(values, cells.row, change)
    return values / size


def _check_size(total: float, size: int) -> None:
    if not 1 <= size <= total:
        raise ValueError(f"{size} n-grams of {total:g}; name at least 1 and no more than there are")


def _seen(count: Floats, total: Any, size: int) -> Floats:
    """The chance that of `count` among `total` at least one is within `size` drawn without replacement."""
    rest = total - count
    possible = rest >= size
    kept = np.where(possible, rest, size)
    missed = gammaln(kept + 1) - gammaln(kept - size + 1) - gammaln(total + 1) + gammaln(total - size + 1)
    seen: Floats = np.where(possible, -np.expm1(np.minimum(missed, 0.0)), 1.0)
    return seen


def self_similarity(counts: Any) -> float:
    """How alike the texts are: the mean over all pairs of different texts of |A ∩ B| / √(|A| |B|), A and B the sets of
    n-grams of the two (Ochiai's coefficient, a cosine); 0 for a pair with an empty one. counts: `ngram_counts` of at
    least two texts. 1 where all say the same.
    """
    count = counts.shape[0]
    if count < 2:
        raise ValueError(f"{count} texts; a pair needs two")
    units = _units(counts)
    total = np.asarray(units.sum(axis=0)).ravel()
    found = (total @ total - units.multiply(units).sum()) / (count * (count - 1))
    return float(np.clip(found, 0, 1))  # the last bits of a sum of roots can lie beyond


def self_similarity_without_each(counts: Any) -> Floats:
    """`self_similarity` of all texts but the i-th, (texts,); of at least three texts."""
    count = counts.shape[0]
    if count < 3:
        raise ValueError(f"{count} texts; without one of them, a pair needs three")
    units = _units(counts)
    total = np.asarray(units.sum(axis=0)).ravel()
    own = np.asarray(units.multiply(units).sum(axis=1)).ravel()
    pairs = total @ total - own.sum()
    values: Floats = np.clip((pairs - 2 * (units @ total - own)) / ((count - 1) * (count - 2)), 0, 1)
    return values


def _units(counts: Any) -> Any:
    """Each text's set of n-grams as a vector of length 1; nothing for a text without."""
    sizes = np.diff(counts.indptr)
    units = counts.copy()
    units.data = np.repeat(1 / np.sqrt(np.maximum(sizes, 1)), sizes)
    return units


def jackknife(value: float, without_each: Floats, level: float = 0.95) -> dict[str, Any]:
    """A statistic of n texts with its interval, from its values without each of them (n,), n >= 2: mean, interval,
    standard_error and n.

    Standard error √((n - 1) / n Σ (θ_i - mean θ_i)²), interval ± t_(n-1) of it (Efron & Tibshirani 1993, chapter 11).
    For what counts kinds of things a bootstrap would be wrong: it draws some texts twice, and every n-gram of a text
    that is there twice counts as repeated.
    """
    count = len(without_each)
    if count < 2:
        raise ValueError(f"{count} texts; a spread needs two")
    error = float(np.sqrt((count - 1) / count * ((without_each - without_each.mean()) ** 2).sum()))
    half = float(t.ppf((1 + level) / 2, count - 1)) * error
    return {"mean": value, "interval": [value - half, value + half], "n": count, "standard_error": error}


def rouge_l(candidate: Sequence[str], reference: Sequence[str]) -> float:
    """ROUGE-L of two texts, given as their words: 2 L / (words of both), L the length of their longest common
    subsequence (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", eqs. 2-4 with β = 1, the F1 of
    Google's rouge-score); 0 where a text is empty.
    """
    if not candidate or not reference:
        return 0.0
    return 2 * common_subsequence(candidate, reference) / (len(candidate) + len(reference))


def common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence; whole rows of the table at a time, as bits of an integer (Hyyrö
    2004, "Bit-parallel LCS-length computation revisited", figure 2).
    """
    places: dict[str, int] = {}
    for place, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << place
    everything = (1 << len(one)) - 1
    row = everything
    for word in other:
        shared = row & places.get(word, 0)
        row = (row + shared) | (row - shared)
    return (~row & everything).bit_count()
