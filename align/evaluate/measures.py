"""What can be measured of responses without a judge: length, refusals, repetition, variety, language, references.

Each measure has its mean for each model, and the difference to the base on the same prompts, with intervals over
prompts. Which of three ways to an interval is taken depends on what is measured: a share of yes and no has the exact
one and Tango's (preferences/stats/rates.py), a mean the bootstrap's, and what is no mean over prompts (distinct
n-grams, BLEU) the jackknife's.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from align.audit.shares import sure_language
from align.audit.texts import refuses
from align.evaluate import references
from align.evaluate.evidence import MAIN, Evidence, Said
from align.evaluate.perplexity import Nats
from preferences.stats.rates import rate, rate_difference
from preferences.stats.significance import holm, permutation_test
from preferences.stats.texts import (
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
from preferences.stats.winrate import mean_interval, paired_difference

Floats = NDArray[np.float64]

MOST = {"share": 1.0, "likeness": 1.0, "points": 100.0}  # that a statistic of all prompts together can be
LEAST_NGRAMS = 100  # of fewer, a share of distinct ones says nothing


class Measure(NamedTuple):
    """What a measure is, in a few words, its unit, and which direction is the good one, if one is."""

    words: str
    unit: Literal["share", "characters", "tokens", "points", "nats", "perplexity", "likeness"]
    better: Literal["higher", "lower"] | None


MEASURES = {
    "length": Measure("characters in a response", "characters", None),
    "tokens": Measure("tokens in a response", "tokens", None),
    "finished": Measure("responses that end by themselves within the length allowed", "share", "higher"),
    "empty": Measure("responses with nothing in them", "share", "lower"),
    "refusals": Measure("responses that decline in their first words, by phrases", "share", "lower"),
    "other_language": Measure("responses in another language than their prompt", "share", "lower"),
    "repetition": Measure("sequences of four words that a response has said before", "share", "lower"),
    "same_answer": Measure("responses given, word for word, to an earlier prompt, too", "share", "lower"),
    "distinct_1": Measure("distinct words among equally many of each model", "share", "higher"),
    "distinct_2": Measure("distinct pairs of words among equally many of each model", "share", "higher"),
    "self_similarity": Measure(
        "likeness of responses to different prompts, 1 where all are the same", "likeness", "lower"
    ),
    "rouge_l": Measure("ROUGE-L against references", "share", "higher"),
    "chrf": Measure("chrF against references, from 0 to 100", "points", "higher"),
    "bleu": Measure("BLEU against references, from 0 to 100", "points", "higher"),
    "nats_per_character": Measure("surprise at held-out text, in nats per character", "nats", "lower"),
    "perplexity": Measure("perplexity of held-out text per token", "perplexity", "lower"),
}


class Whole(NamedTuple):
    """A statistic of all prompts together, and its values without each of them (n,)."""

    value: float
    without_each: Floats


Values = Mapping[str, Floats]  # by model: a value a prompt, NaN where it is not known
Found = dict[str, dict[str, dict[str, Any]]]  # by model and measure


def measures(
    evidence: Evidence, nats: Mapping[str, Nats] | None = None, *, of: str = MAIN
) -> dict[str, dict[str, dict[str, Any]]]:
    """{model: {measure: mean, interval, n, standard_error, difference, better, unit, words}} on the prompts of one set.

    `difference` is the model's less the base's; None for the base, and where one of the two is not known. It has a
    p_value, and p_adjusted (Holm) over all measures of all models, where the measure has a good direction; refusals
    have none on a challenge set, where what is right depends on the set. `nats`: what `perplexity` found, for the main
    prompts. A measure of which nothing is known is left out.
    """
    numbers = [number for number, prompt in enumerate(evidence.prompts) if prompt.set == of]
    said = {model: [rows[number] for number in numbers] for model, rows in evidence.responses.items()}
    found: Found = {model: {} for model in said}
    if numbers:
        spoken = {model: [words(one.text) for one in rows] for model, rows in said.items()}
        for name, values in _each(evidence, numbers, said, spoken):
            _add(found, name, _of_values(values, evidence.base, name))
        for name, wholes in [*_variety(spoken), *_bleu(evidence, numbers, said)]:
            _add(found, name, _of_wholes(wholes, evidence.base, MOST[MEASURES[name].unit]))
    for name, wholes in _surprise(nats or {}, evidence.base):
        _add(found, name, _of_wholes(wholes, evidence.base, np.inf))
    if of != MAIN:
        for by in found.values():
            if "refusals" in by:
                by["refusals"]["better"] = None
    _adjust(found)
    return found


# --- one value a response ---------------------------------------------------------------------------------------


def _each(
    evidence: Evidence,
    numbers: Sequence[int],
    said: Mapping[str, Sequence[Said]],
    spoken: Mapping[str, Sequence[Sequence[str]]],
) -> Iterable[tuple[str, Values]]:
    """Each measure that has a value a response, by model."""

    def of_said(look: Callable[[Said], float | bool | None]) -> Values:
        return {model: _array(look(one) for one in rows) for model, rows in said.items()}

    yield "length", of_said(lambda one: len(one.text))
    yield "tokens", of_said(lambda one: None if one.ids is None else len(one.ids))
    yield "finished", of_said(lambda one: one.ended)
    yield "empty", of_said(lambda one: not one.text.strip())
    yield "refusals", of_said(lambda one: refuses(one.text))
    asked = [sure_language(evidence.prompts[number].turns[-1]["content"]) for number in numbers]
    yield (
        "other_language",
        {
            model: _array(_differs(language, one.text) for language, one in zip(asked, rows, strict=True))
            for model, rows in said.items()
        },
    )
    yield "same_answer", {model: _array(_given_before(rows)) for model, rows in said.items()}
    yield "repetition", {model: _array(map(repetition, rows)) for model, rows in spoken.items()}
    shown = [evidence.prompts[number].reference for number in numbers]
    kept = [place for place, reference in enumerate(shown) if reference]
    if not kept:
        return
    good = [reference for reference in shown if reference]
    good_words = [words(reference, marks=False) for reference in good]
    rouge, chrf = {}, {}
    for model, rows in said.items():
        texts = [rows[place].text for place in kept]
        rouge[model], chrf[model] = np.full((2, len(numbers)), np.nan)
        rouge[model][kept] = [rouge_l(words(x, marks=False), y) for x, y in zip(texts, good_words, strict=True)]
        chrf[model][kept] = references.chrf(texts, good)
    yield "rouge_l", rouge
    yield "chrf", chrf


def _differs(asked: str | None, text: str) -> bool | None:
    answered = sure_language(text) if asked else None
    return None if answered is None else answered != asked


def _given_before(rows: Sequence[Said]) -> Iterable[bool]:
    seen: set[str] = set()
    for one in rows:
        text = " ".join(one.text.split())
        yield bool(text) and text in seen
        seen.add(text)


def _array(values: Iterable[float | bool | None]) -> Floats:
    return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)


def _of_values(values: Values, base: str, name: str) -> dict[str, dict[str, Any]]:
    """By model: the mean with its interval, and the difference to the base on the prompts where both are known."""
    yes_or_no = name in ("finished", "empty", "refusals", "other_language", "same_answer")
    found: dict[str, dict[str, Any]] = {}
    for model, own in values.items():
        known = ~np.isnan(own)
        if not known.any():
            continue
        found[model] = rate(own[known]) if yes_or_no else mean_interval(own[known])
        both = known & ~np.isnan(values[base])
        if model == base or not both.any():
            continue
        mine, theirs = own[both], values[base][both]
        if yes_or_no:
            found[model]["difference"] = rate_difference(mine, theirs)
        else:
            p = permutation_test(mine - theirs) if MEASURES[name].better else None  # slow, and no use
            found[model]["difference"] = {**paired_difference(mine, theirs), "p_value": p}
    return found


# --- one value for all responses together ------------------------------------------------------------------------


def _variety(spoken: Mapping[str, Sequence[Sequence[str]]]) -> list[tuple[str, dict[str, Whole]]]:
    """Distinct n-grams among as many of each model as the one has that has fewest, and self-similarity in bigrams."""
    found: list[tuple[str, dict[str, Whole]]] = []
    for n in (1, 2):
        counts = {model: ngram_counts(rows, n) for model, rows in spoken.items()}
        # without any one of its responses, too
        sizes = {model: int(rows.sum() - rows.sum(axis=1).max()) for model, rows in counts.items()}
        enough = [model for model, size in sizes.items() if size >= LEAST_NGRAMS]
        if enough:
            size = min(sizes[model] for model in enough)
            wholes = {
                model: Whole(distinct(counts[model], size), distinct_without_each(counts[model], size))
                for model in enough
            }
            found.append((f"distinct_{n}", wholes))
    if min(map(len, spoken.values())) > 2:
        # where it begins and ends counts, so that answers of one word can be alike, too
        whole = {model: [["", *said, ""] if said else [] for said in rows] for model, rows in spoken.items()}
        counts = {model: ngram_counts(rows, 2) for model, rows in whole.items()}
        alike = {
            model: Whole(self_similarity(rows), self_similarity_without_each(rows)) for model, rows in counts.items()
        }
        found.append(("self_similarity", alike))
    return found


def _bleu(
    evidence: Evidence, numbers: Sequence[int], said: Mapping[str, Sequence[Said]]
) -> list[tuple[str, dict[str, Whole]]]:
    shown = [evidence.prompts[number].reference for number in numbers]
    kept = [place for place, reference in enumerate(shown) if reference]
    if len(kept) < 2:
        return []
    good = [reference for reference in shown if reference]
    wholes = {}
    for model, rows in said.items():
        counts = references.bleu_counts([rows[place].text for place in kept], good)
        wholes[model] = Whole(references.bleu(counts.sum(axis=0)), references.bleu_without_each(counts))
    return [("bleu", wholes)]


def _surprise(nats: Mapping[str, Nats], base: str) -> list[tuple[str, dict[str, Whole]]]:
    """Nats per character, which any two models can be compared by; per token, where the base has the same tokens."""
    by_character, by_token = {}, {}
    for model, found in nats.items():
        if len(found.nats) < 2:
            continue
        total, left = found.nats.sum(), found.nats.sum() - found.nats
        size = found.characters.sum()
        by_character[model] = Whole(total / size, left / (size - found.characters))
        if base in nats and found.cut == nats[base].cut:
            size = found.tokens.sum()
            by_token[model] = Whole(float(np.exp(total / size)), np.exp(left / (size - found.tokens)))
    return [("nats_per_character", by_character), ("perplexity", by_token)]


def _of_wholes(wholes: Mapping[str, Whole], base: str, most: float) -> dict[str, dict[str, Any]]:
    """By model: the statistic, from 0 to `most`, with its jackknife interval, and the difference to the base."""
    found: dict[str, dict[str, Any]] = {}
    for model, own in wholes.items():
        found[model] = jackknife(own.value, own.without_each)
        low, high = found[model]["interval"]
        found[model]["interval"] = [max(low, 0.0), min(high, most)]
        if model != base and base in wholes:
            theirs = wholes[base]
            difference = jackknife(own.value - theirs.value, own.without_each - theirs.without_each)
            found[model]["difference"] = {**difference, "p_value": _p_of_jackknife(difference)}
    return found


def _p_of_jackknife(difference: Mapping[str, Any]) -> float:
    """Two-sided p-value of "no difference", from Student's t with n - 1 degrees of freedom."""
    if difference["standard_error"] == 0:
        return 1.0 if difference["mean"] == 0 else 0.0
    return float(2 * t.sf(abs(difference["mean"]) / difference["standard_error"], difference["n"] - 1))


# --- putting together -------------------------------------------------------------------------------------------


def _add(found: Found, name: str, by_model: Mapping[str, dict[str, Any]]) -> None:
    for model, fields in by_model.items():
        found[model][name] = {"difference": None, **fields, **MEASURES[name]._asdict()}


def _adjust(found: Found) -> None:
    """Holm's p-values over all differences that can be for better or worse."""
    asked = [
        fields["difference"]
        for by in found.values()
        for fields in by.values()
        if fields["difference"] and fields["better"]
    ]
    for difference, adjusted in zip(asked, holm([one["p_value"] for one in asked]), strict=True):
        difference["p_adjusted"] = adjusted
