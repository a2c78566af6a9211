"""What got worse, by an evaluation's numbers: one list that the report, the model card and the gate read. Pure."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from align.report.words import percent

LEAST_PROMPTS = 20  # of a slice, a challenge set or a measure, to be judged at all; see align/evaluate/slices.py
ALPHA = 0.05

# What weighs most stands first: the prompts that somebody chose because they matter, then kinds of prompts, then texts.
KINDS = ("verdict", "challenge set", "slice", "task", "measure", "measure on a challenge set")


def worse(metrics: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """{"worse", "perhaps", "too_few"} of a metrics.json: each a list of {model, kind, name, judge, value, interval, n,
    p_adjusted, words}, in the order of KINDS and then the clearest first.

    worse: the judge that decides prefers the base there (the interval of the win rate, `value`, lies below one half),
    or a measure's difference to the base, `value`, goes in its bad direction (its interval excludes 0, p < 0.05); and
    that holds after correction for how many were looked at (p_adjusted < 0.05, where there is one). perhaps: the same
    without what the correction asks: among many slices some look so by chance. too_few: slices, sets and measures of
    fewer than LEAST_PROMPTS prompts, or so few that no win rate could have shown, which say nothing either way.
    """
    found: dict[str, list[dict[str, Any]]] = {"worse": [], "perhaps": [], "too_few": []}
    for entry, list_name in [*_of_pairs(metrics), *_of_tasks(metrics), *_of_measures(metrics)]:
        found[list_name].append(entry)
    for rows in found.values():
        rows.sort(key=lambda row: (KINDS.index(row["kind"]), row["clear"]))
        for row in rows:
            del row["clear"]
    return found


def _of_pairs(metrics: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    judge = metrics.get("verdict_by")
    for model, facts in _others(metrics):
        yield from _of_pair(model, "verdict", model, judge, (facts.get("judges") or {}).get(judge))
        for tag, by in (facts.get("tags") or {}).items():
            yield from _of_pair(model, "slice", tag, judge, by.get(judge))
    for name, about in (metrics.get("challenge_sets") or {}).items():
        for model, facts in (about.get("models") or {}).items():
            yield from _of_pair(model, "challenge set", name, judge, (facts.get("judges") or {}).get(judge))


def _of_pair(
    model: str, kind: str, name: str, judge: str | None, pair: Mapping[str, Any] | None
) -> Iterator[tuple[dict[str, Any], str]]:
    if not pair:
        return
    low, high = pair["interval"]
    few = pair["n"] < LEAST_PROMPTS or pair.get("smallest_detectable", 1) is None
    if not few and high >= 0.5:
        return
    words = (
        f"only {pair['n']} prompts"
        if few
        else f"preferred to the base in {percent(pair['win_rate'])}, interval {percent(low)} to {percent(high)},"
        f" {pair['n']} prompts"
    )
    entry = _entry(model, kind, name, judge, pair["win_rate"], pair, words)
    entry["clear"] = pair["n"] if few else high
    yield entry, "too_few" if few else _list_of(pair.get("p_adjusted"))


def _of_measures(metrics: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for model, facts in _others(metrics):
        for name, measure in (facts.get("measures") or {}).items():
            yield from _of_measure(model, "measure", name, measure)
    for set_name, about in (metrics.get("challenge_sets") or {}).items():
        for model, facts in (about.get("models") or {}).items():
            for name, measure in (facts.get("measures") or {}).items():
                yield from _of_measure(model, "measure on a challenge set", f"{name} on {set_name}", measure)


def _of_measure(
    model: str, kind: str, name: str, measure: Mapping[str, Any] | None
) -> Iterator[tuple[dict[str, Any], str]]:
    difference, better = (measure or {}).get("difference"), (measure or {}).get("better")
    if not measure or not difference or not difference.get("interval") or not better:
        return
    low, high = difference["interval"]
    few = difference["n"] < LEAST_PROMPTS
    bad = high < 0 if better == "higher" else low > 0
    if not few and not (bad and difference.get("p_value", 0) < ALPHA):
        return
    before = measure["mean"] - difference["mean"]
    words = (
        f"only {difference['n']} prompts"
        if few
        else f"{_number(measure['mean'])} against about {_number(before)} of the base, difference"
        f" {_number(difference['mean'])}, interval {_number(low)} to {_number(high)}"
    )
    entry = _entry(model, kind, name, None, difference["mean"], difference, words)
    error = difference.get("standard_error")
    entry["clear"] = difference["n"] if few else -abs(difference["mean"]) / error if error else -math.inf
    yield entry, "too_few" if few else _list_of(difference.get("p_adjusted"))


def _of_tasks(metrics: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Tasks of lm-evaluation-harness: a fall of more than the errors of both models explain.

    All models meet the same questions, so their difference is surer than this says: it errs on the careful side.
    """
    asked = []
    for task, by_metric in (metrics.get("harness") or {}).items():
        for metric, by_model in by_metric.items():
            base = by_model.get(metrics["base"]) or {}
            for model, _ in _others(metrics):
                cell = by_model.get(model) or {}
                errors = [float(one["standard_error"]) for one in (cell, base) if one.get("standard_error") is not None]
                if len(errors) < 2 or not any(errors) or not cell.get("better"):
                    continue
                error = math.hypot(*errors)
                fall = (base["value"] - cell["value"]) * (1 if cell["better"] == "higher" else -1)
                asked.append((model, f"{task}, {metric}", cell["value"], base["value"], fall / error, error))
    for model, name, value, before, z, error in asked:
        p = math.erfc(abs(z) / math.sqrt(2))
        if z <= 0 or p >= ALPHA:
            continue
        gap, adjusted = value - before, min(1.0, p * len(asked))
        fields = {"interval": [gap - 1.96 * error, gap + 1.96 * error], "n": None, "p_adjusted": adjusted}
        words = f"{_number(value)} against {_number(before)} of the base"
        entry = _entry(model, "task", name, None, gap, fields, words)
        yield {**entry, "clear": -z}, _list_of(adjusted)


def _others(metrics: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(model, facts) for model, facts in metrics["models"].items() if model != metrics["base"]]


def _list_of(p_adjusted: float | None) -> str:
    return "worse" if p_adjusted is None or p_adjusted < ALPHA else "perhaps"


def _entry(
    model: str, kind: str, name: str, judge: str | None, value: float, fields: Mapping[str, Any], words: str
) -> dict[str, Any]:
    return {
        "model": model,
        "kind": kind,
        "name": name,
        "judge": judge,
        "value": value,
        "interval": list(fields["interval"]),
        "n": fields["n"],
        "p_adjusted": fields.get("p_adjusted"),
        "words": words,
    }


def _number(value: float) -> str:
    return f"{value:.3g}"
