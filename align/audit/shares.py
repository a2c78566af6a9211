"""Shares with their uncertainty: does the longer one win, the one shown first, one model always; languages, tags."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

from preferences.stats.intervals import wilson


class Share(NamedTuple):
    """A share of n cases with its 95% interval; `value` and `interval` are None for no case."""

    value: float | None
    interval: tuple[float, float] | None
    n: int


def share(hits: Sequence[float], clusters: Sequence[object] | None = None) -> Share:
    """The mean of `hits`, 0 or 1 each. Cases of one cluster (a prompt, a ranking) are not independent of each other.

    Wilson's interval (1927), for as many independent cases as the clusters are worth: n over the design effect, which
    is the variance of the mean over clusters in units of the variance of n independent cases (Kish 1965), at least 1.
    """
    n = len(hits)
    if not n:
        return Share(None, None, 0)
    mean = sum(hits) / n
    effective = float(n)
    if clusters is not None and 0 < mean < 1:
        sums: dict[object, float] = defaultdict(float)
        for hit, cluster in zip(hits, clusters, strict=True):
            sums[cluster] += hit - mean
        effective = n / max(1.0, sum(value * value for value in sums.values()) / (n * mean * (1 - mean)))
    low, high = wilson(mean * effective, effective)
    return Share(mean, (low, high), n)


def longer_wins(lengths: Iterable[tuple[int, int, object]]) -> Share:
    """How often the longer response is the chosen one: from (length of chosen, of rejected, cluster); equal ones
    say nothing.
    """
    cases = [(float(won > lost), cluster) for won, lost, cluster in lengths if won != lost]
    return share([hit for hit, _ in cases], [cluster for _, cluster in cases])


def earlier_wins(answers: Iterable[tuple[Sequence[int], Sequence[int]]]) -> Share:
    """How often the response that was shown earlier got the better rank: from (ranks, order in which the responses were
    shown). Over all pairs of responses with different ranks; an answer is a cluster.
    """
    hits: list[float] = []
    clusters: list[int] = []
    for number, (ranks, shown) in enumerate(answers):
        for place, early in enumerate(shown):
            for late in shown[place + 1 :]:
                if ranks[early] != ranks[late]:
                    hits.append(float(ranks[early] < ranks[late]))
                    clusters.append(number)
    return share(hits, clusters)


def wins_of_models(pairs: Iterable[tuple[str | None, str | None]]) -> dict[str, tuple[int, int]]:
    """{model: (pairs that it won, pairs in all)} against other models, from (model of chosen, of rejected)."""
    won: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for one, other in pairs:
        if one is not None and other is not None and one != other:
            won[one] += 1
            seen.update((one, other))
    return {model: (won[model], count) for model, count in sorted(seen.items())}


def rare_tags(tags: Iterable[Iterable[str]], least: int, share_of_all: float) -> tuple[Counter[str], list[str]]:
    """How many rows each tag has, and the tags with fewer than `least` rows and less than `share_of_all` of them."""
    rows, counts = 0, Counter[str]()
    for row in tags:
        rows += 1
        counts.update(set(row))
    return counts, sorted(tag for tag, count in counts.items() if count < least and count < share_of_all * rows)


def evenly(count: int, most: int) -> list[int]:
    """At most `most` numbers below `count`, evenly spread: a sample that is the same each time."""
    return list(range(count)) if count <= most else [number * count // most for number in range(most)]


_READ = 600  # characters of a text that are looked at
_LETTERS = 40  # fewer letters are no evidence of a language
_LONG = 200  # letters, from which lists tell, too
_WORDS_A_PART = 3  # of a list: names and single words tell little
_SURE = 0.9  # of py3langid's own probability; lists of names and titles stay below
_BREAKS = re.compile(r"[,;\n](?=\s*\S)")


def language(text: str) -> str | None:
    """The likeliest language of a text (ISO 639), by py3langid; None where too few letters tell, or a short list."""
    import py3langid

    return py3langid.classify(text[:_READ])[0] if _tells(text[:_READ]) else None


def sure_language(text: str) -> str | None:
    """The same, and None too where py3langid gives the language a probability below 0.9."""
    if not _tells(text[:_READ]):
        return None
    found, probability = _identifier().classify(text[:_READ])
    return found if probability >= _SURE else None


def _tells(text: str) -> bool:
    letters = sum(letter.isalpha() for letter in text)
    dense = sum(letter >= "\u2e80" for letter in text)  # Chinese, Japanese, Korean: one says more than a letter
    if letters + 4 * dense < _LETTERS or letters < 0.6 * len(text):
        return False
    return letters >= _LONG or dense > 0 or len(_BREAKS.findall(text)) < len(text.split()) / _WORDS_A_PART


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
