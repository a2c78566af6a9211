"""Which model is better by which judge: win rates against the base, strengths of all, and whose word counts most."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from align.evaluate.evidence import Evidence, Judged, main_numbers
from align.evaluate.people import cells_of
from preferences.judgements import by_prompt, pairs_of
from preferences.stats.bradley_terry import fit_strengths
from preferences.stats.pair import pair_fields

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
    """The judge whose verdict decides; of several of one kind the first one named. Judges that said nothing of the main
    prompts don't count; None where nobody did.
    """
    ranks = {}
    main = main_numbers(evidence.prompts)
    for name, judged in evidence.judged.items():
        if any(values[number] is not None for values in judged.preferences.values() for number in main):
            ranks[name] = WEIGHT.index("gold" if judged.facts.get("gold") else str(judged.facts["kind"]))
    return min(ranks, key=lambda name: ranks[name]) if ranks else None


def pair_of(evidence: Evidence, judge: str, model: str, keep: Sequence[int] | None = None) -> dict[str, Any] | None:
    """How often the judge prefers the model to the base, over the prompts with these numbers (all by default; of one
    set), and how sure that is. None where the judge said nothing about them.
    """
    judged = evidence.judged[judge]
    preferences = judged.preferences.get(model)
    if preferences is None:
        return None
    asked = range(len(evidence.prompts)) if keep is None else keep
    numbers = [number for number in asked if preferences[number] is not None]
    if not numbers:
        return None
    lengths = {name: [len(evidence.responses[name][n].text) for n in numbers] for name in (model, evidence.base)}
    cells = cells_of(judged, model, evidence.base, evidence.prompts, numbers)
    fields = pair_fields(
        np.array([preferences[number] for number in numbers], dtype=np.float64),
        candidate_length=lengths[model],
        baseline_length=lengths[evidence.base],
        cells=cells,
    )
    if cells:
        fields["raters"] = len({cell.who for cell in cells})
    return {"candidate": model, "baseline": evidence.base, **fields}


def pairs(evidence: Evidence, model: str) -> dict[str, Any]:
    """By judge: the model against the base on the main prompts."""
    main = main_numbers(evidence.prompts)
    found = {judge: pair_of(evidence, judge, model, main) for judge in evidence.judged}
    return {judge: fields for judge, fields in found.items() if fields is not None}


def many_models(evidence: Evidence) -> dict[str, Any]:
    """By judge: the strength of each model on the main prompts, where it connects more than two by comparisons.

    A judge with scores compares every model with every other; others compared those pairs that they were shown.
    """
    found = {}
    for judge, judged in evidence.judged.items():
        rows = _compared(evidence, judged)
        if len({name for row in rows for name in row[1:3]}) > 2:
            prompts, candidates, baselines, values = zip(*rows, strict=True)
            try:
                found[judge] = fit_strengths(prompts, candidates, baselines, values)
            except ValueError:  # two groups of models that were never compared with each other
                continue
    return found


def _compared(evidence: Evidence, judged: Judged) -> list[tuple[str, str, str, float]]:
    """(prompt, one model, another, preference for the one) of all that a judge compared on the main prompts."""
    main = main_numbers(evidence.prompts)
    ids = {evidence.prompts[number].id for number in main}
    found: list[tuple[str, str, Sequence[float | None]]] = []
    rows: list[tuple[str, str, str, float]] = []
    if judged.scores is not None:
        for one, other in combinations(evidence.responses, 2):
            found.append((one, other, prefer(judged.scores[one], judged.scores[other])))
    else:
        found += [(model, evidence.base, values) for model, values in judged.preferences.items()]
        for (one, other), said in pairs_of([row for row in judged.judgements if row.prompt in ids]).items():
            if evidence.base not in (one, other):
                means = by_prompt(said, one, other)
                rows += [(key, one, other, float(value)) for key, value in zip(*means[:2], strict=True)]
    for one, other, values in found:
        for number in main:
            if (value := values[number]) is not None and one != other:
                rows.append((evidence.prompts[number].id, one, other, value))
    return rows
