"""Which model is better by which judge: win rates against the base, strengths of all, and whose word counts most."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from align.evaluate.evidence import MAIN, Evidence
from preferences.stats.bradley_terry import fit_strengths
from preferences.stats.winrate import win_rate

# Whose verdict decides where several judges spoke, the weightiest first; "gold" is a reward model kept from training.
WEIGHT = ("known truth", "people", "gold", "language model", "judgements", "reward model", "function")


def better(candidate: float, baseline: float) -> float:
    """1 where the candidate scores higher, 0 where the baseline does, 0.5 where they are equal."""
    return 0.5 + 0.5 * ((candidate > baseline) - (candidate < baseline))


def prefer(candidate: Sequence[float | None], baseline: Sequence[float | None]) -> list[float | None]:
    """The same of every prompt; None where one of the two has no score."""
    both = zip(candidate, baseline, strict=True)
    return [None if c is None or b is None else better(c, b) for c, b in both]


def verdict_by(evidence: Evidence) -> str | None:
    """The judge whose verdict decides; of several of one kind the first one named. None where nobody judged."""
    ranks = {}
    for name, judged in evidence.judged.items():
        kind = "gold" if judged.facts.get("gold") else str(judged.facts["kind"])
        ranks[name] = WEIGHT.index(kind)
    return min(ranks, key=lambda name: ranks[name]) if ranks else None


def pair_of(evidence: Evidence, judge: str, model: str, keep: Sequence[int] | None = None) -> dict[str, Any] | None:
    """How often the judge prefers the model to the base, over the prompts with these numbers (all by default), and how
    sure that is. None where the judge said nothing about them.
    """
    preferences = evidence.judged[judge].preferences.get(model, ())
    numbers = range(len(evidence.prompts)) if keep is None else keep
    said = [value for number in numbers if preferences and (value := preferences[number]) is not None]
    if not said:
        return None
    fields = win_rate(said)
    return {"candidate": model, "baseline": evidence.base, **fields}


def pairs(evidence: Evidence, model: str) -> dict[str, Any]:
    """By judge: the model against the base on the main prompts."""
    keep = [number for number, prompt in enumerate(evidence.prompts) if prompt.set == MAIN]
    found = {judge: pair_of(evidence, judge, model, keep) for judge in evidence.judged}
    return {judge: fields for judge, fields in found.items() if fields is not None}


def many_models(evidence: Evidence) -> dict[str, Any]:
    """By judge: the strength of each model on the main prompts, where there are more than two.

    A judge with scores compares every model with every other; others compared them with the base.
    """
    keep = [number for number, prompt in enumerate(evidence.prompts) if prompt.set == MAIN]
    found = {}
    for judge, judged in evidence.judged.items():
        rows = []
        if judged.scores is not None:
            for one, other in combinations(evidence.responses, 2):
                said = prefer(judged.scores[one], judged.scores[other])
                rows += [(number, one, other, said[number]) for number in keep]
        else:
            for model, preferences in judged.preferences.items():
                rows += [
                    (number, model, evidence.base, preferences[number]) for number in keep if model != evidence.base
                ]
        rows = [row for row in rows if row[3] is not None]
        if len({name for row in rows for name in row[1:3]}) > 2:
            found[judge] = fit_strengths(*(list(column) for column in zip(*rows, strict=True)))
    return found
