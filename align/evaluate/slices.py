"""Where it helped and where it did harm: by tag, on challenge sets, and between groups of prompts and of raters.

Many slices are looked at, and one in twenty would look worse by chance. So each p-value comes with one that is adjusted
(Holm) for all slices of all models, for each judge by itself; and a slice of few prompts is said to be too small.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align.audit.shares import sure_language
from align.evaluate.evidence import MAIN, Evidence, main_numbers
from align.evaluate.measures import measures
from align.evaluate.verdicts import pair_of
from align.report.worse import LEAST_PROMPTS
from preferences.judgements import Judgement, by_prompt
from preferences.stats.significance import holm, two_sample_permutation
from preferences.stats.winrate import win_rate

Floats = NDArray[np.float64]

# Below these (and LEAST_PROMPTS) a group is not judged. Of 20 prompts a sign test finds 15 wins, or 17 after correction
# for ten slices; of fewer, little less than all.
LEAST_RATERS = 5
MOST_TAGS = 100  # the commonest: a data set that gives every prompt a tag of its own says nothing by its slices


def by_tag(evidence: Evidence) -> dict[str, dict[str, dict[str, Any]]]:
    """{model: {tag: {judge: fields of a pair, p_value, p_adjusted}}} over the main prompts with that tag.

    Where they are fewer than LEAST_PROMPTS, `few` is true, and p_adjusted is None.
    """
    tagged = _tagged(evidence)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for judge in evidence.judged:
        for (model, tag), pair in _pairs(evidence, judge, tagged).items():
            found.setdefault(model, {}).setdefault(tag, {})[judge] = pair
    return found


def challenge_sets(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """{set: {prompts, models: {model: {judges, measures, length, finished}}}}, each set by itself and in no verdict.

    The pairs are as in `by_tag`, adjusted over all sets and models.
    """
    sets: dict[str, list[int]] = defaultdict(list)
    for number, prompt in enumerate(evidence.prompts):
        if prompt.set != MAIN:
            sets[prompt.set].append(number)
    found: dict[str, dict[str, Any]] = {}
    for name, numbers in sets.items():
        measured = measures(evidence, of=name)
        models = {
            model: {
                "judges": {},
                "measures": by,
                "length": by.get("length"),
                "finished": by["finished"]["mean"] if "finished" in by else None,
            }
            for model, by in measured.items()
        }
        found[name] = {"prompts": len(numbers), "models": models}
    for judge in evidence.judged:
        for (model, name), pair in _pairs(evidence, judge, sets).items():
            found[name]["models"][model]["judges"][judge] = pair
    return found


def gaps(evidence: Evidence) -> dict[str, list[dict[str, Any]]]:
    """{"prompts", "raters"}: by how much a model's win rate is higher with a group than with the rest.

    Groups of prompts are the main prompts with a tag, and those in a language ("language: de"), where that is sure;
    groups of raters are those of a judgement's `rater_groups`. Each gap: model, judge, group, n and rest_n (prompts, or
    raters), mean, interval, p_value and p_adjusted. A group is left out that is everybody; where it or the rest is
    fewer than LEAST_PROMPTS or LEAST_RATERS, `few` is true, and there are no p-values.
    """
    return {"prompts": _prompt_gaps(evidence), "raters": _rater_gaps(evidence)}


# --- groups of prompts ------------------------------------------------------------------------------------------


def _others(evidence: Evidence) -> list[str]:
    return [model for model in evidence.responses if model != evidence.base]


def _tagged(evidence: Evidence) -> dict[str, list[int]]:
    """The main prompts that have each of the commonest tags, by number."""
    found: dict[str, list[int]] = defaultdict(list)
    for number in main_numbers(evidence.prompts):
        for tag in evidence.prompts[number].tags:
            found[tag].append(number)
    common = sorted(found, key=lambda tag: (-len(found[tag]), tag))[:MOST_TAGS]
    return {tag: found[tag] for tag in sorted(common)}


def _pairs(evidence: Evidence, judge: str, parts: Mapping[str, Sequence[int]]) -> dict[tuple[str, str], dict[str, Any]]:
    """{(model, part): fields of a pair} on parts of the prompts, p-values adjusted for all that are large enough."""
    pairs = {
        (model, part): pair
        for model in _others(evidence)
        for part, numbers in parts.items()
        if (pair := pair_of(evidence, judge, model, numbers))
    }
    for pair in pairs.values():
        pair["p_adjusted"], pair["few"] = None, pair["n"] < LEAST_PROMPTS
    large = [pair for pair in pairs.values() if not pair["few"]]
    for pair, adjusted in zip(large, holm([pair["p_value"] for pair in large]), strict=True):
        pair["p_adjusted"] = adjusted
    return pairs


def _prompt_gaps(evidence: Evidence) -> list[dict[str, Any]]:
    main = main_numbers(evidence.prompts)
    groups = _tagged(evidence)
    for number in main:
        if language := sure_language(evidence.prompts[number].turns[-1]["content"]):
            groups.setdefault(f"language: {language}", []).append(number)
    found = []
    for judge in evidence.judged:
        of_judge = []
        for model in _others(evidence):
            said = evidence.judged[judge].preferences.get(model)
            if said is None:
                continue
            values = np.array([np.nan if value is None else value for value in said], dtype=np.float64)
            for group, numbers in groups.items():
                inside = np.isin(main, numbers)
                both = [part[~np.isnan(part)] for part in (values[main][inside], values[main][~inside])]
                if min(map(len, both)) == 0:
                    continue
                few = min(map(len, both)) < LEAST_PROMPTS
                about = {"model": model, "judge": judge, "group": group, "n": len(both[0]), "rest_n": len(both[1])}
                intervals = [win_rate(part) for part in both]
                p = None if few else two_sample_permutation(*both)
                of_judge.append({**about, **_apart(*intervals), "p_value": p, "few": few})
        found += _adjusted(of_judge)
    return found


def _apart(one: Mapping[str, Any], rest: Mapping[str, Any]) -> dict[str, Any]:
    """The difference of two win rates, and its interval from theirs.

    [d - √((p1 - l1)² + (u2 - p2)²), d + √((u1 - p1)² + (p2 - l2)²)] (MOVER: Zou & Donner 2008, Statistics in Medicine
    27(10)). Unlike a bootstrap of the difference it has a width where every verdict of a group is the same.
    """
    (p1, (l1, u1)), (p2, (l2, u2)) = ((fields["win_rate"], fields["interval"]) for fields in (one, rest))
    gap = p1 - p2
    return {
        "mean": gap,
        "interval": [
            max(-1.0, gap - float(np.hypot(p1 - l1, u2 - p2))),
            min(1.0, gap + float(np.hypot(u1 - p1, p2 - l2))),
        ],
    }


def _adjusted(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    tested = [gap for gap in found if gap["p_value"] is not None]
    for gap in found:
        gap["p_adjusted"] = None
    for gap, adjusted in zip(tested, holm([gap["p_value"] for gap in tested]), strict=True):
        gap["p_adjusted"] = adjusted
    return found


# --- groups of raters -------------------------------------------------------------------------------------------


def _rater_gaps(evidence: Evidence) -> list[dict[str, Any]]:
    main = {prompt.id for prompt in evidence.prompts if prompt.set == MAIN}
    found = []
    for judge, judged in evidence.judged.items():
        rows = [row for row in judged.judgements if row.rater is not None and row.prompt in main]
        groups: dict[str, set[str]] = defaultdict(set)
        for row in rows:
            for group in row.rater_groups:
                groups[group].add(str(row.rater))
        if not groups:
            continue
        of_judge = []
        for model in _others(evidence):
            own = [row if row.candidate == model else row.turned() for row in rows if _is_of(row, model, evidence.base)]
            for group, members in sorted(groups.items()):
                both = ([row for row in own if row.rater in members], [row for row in own if row.rater not in members])
                if all(both):
                    of_judge.append(
                        {"model": model, "judge": judge, "group": group, **_between(*both, model, evidence.base)}
                    )
        found += _adjusted(of_judge)
    return found


def _is_of(row: Judgement, model: str, base: str) -> bool:
    return {row.candidate, row.baseline} == {model, base}


def _between(one: Sequence[Judgement], rest: Sequence[Judgement], model: str, base: str) -> dict[str, Any]:
    """A gap between two groups of raters. The intervals are over prompts and raters; the permutation test deals out the
    raters' own means, for it is raters who are in a group.
    """
    rates, means = [], []
    for rows in (one, rest):
        said = by_prompt(rows, model, base)
        rates.append(win_rate(said.preferences, said.cells))
        by_rater: dict[str, list[float]] = defaultdict(list)
        for cell in said.cells or []:
            by_rater[cell.who].append(cell.value)
        means.append([float(np.mean(values)) for values in by_rater.values()])
    sizes = [len(part) for part in means]
    few = min(sizes) < LEAST_RATERS
    p = None if few else two_sample_permutation(*means)
    return {"n": sizes[0], "rest_n": sizes[1], **_apart(*rates), "p_value": p, "few": few}
