"""What changed beside the verdict: by kind of prompt, by group, in measures; and what may spoil a win. Pure functions.

Fields of metrics.json go in; words and pictures come out. "Detected" always means an interval that excludes no change,
and a p-value below 5% after correction for how many were looked at, where there is one.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from align.report import plots
from align.report.verdict import Verdict, slice_outcome, the_model
from align.report.words import UNSEEN, capital, joined, measured, percent, quoted, spread
from align.report.worse import ALPHA, LEAST_PROMPTS, worse

LENGTH_CHANGE = 0.25  # a change of the mean length that deserves a warning
FINISHED_CHANGE = 0.15  # the same for the share of responses that ended by themselves
LARGE_KL = 30.0  # nats per response: a rule of thumb; see Gao et al. 2023, arXiv 2210.10760, for what happens beyond
MOST_SLICES = 20  # of a model; the worst are always among them
MOST_GAPS = 20
WORSE_NAMED = 6  # in the note on a card

SLICES = {
    "loss": "worse",
    "win": "better",
    "maybe": "may be chance among so many kinds",
    "unclear": "no change detected",
    "few": "too few prompts to tell",
}


# --- kinds of prompts -------------------------------------------------------------------------------------------


def slice_blocks(metrics: Mapping[str, Any], verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """For each model its win rate on each challenge set and each tag, by the judge that decides, the worst first."""
    blocks = []
    for one in verdicts:
        if not one.opinions:
            continue
        judge, shape = one.opinions[0].judge, one.opinions[0].about["shape"]
        sets = {
            name: (((about.get("models") or {}).get(one.model) or {}).get("judges") or {}).get(judge)
            for name, about in (metrics.get("challenge_sets") or {}).items()
        }
        tags = {tag: fields.get(judge) for tag, fields in (metrics["models"][one.model].get("tags") or {}).items()}
        rows = [_slice(name, fields, shape) for name, fields in tags.items() if fields]
        rows.sort(key=lambda row: (list(SLICES).index(row["outcome"]), -row["fields"]["n"], row["label"]))
        block = {
            "model": one.model,
            "sets": [_slice(name, fields, shape) for name, fields in sets.items() if fields],
            "tags": rows[:MOST_SLICES],
            "left_out": max(0, len(rows) - MOST_SLICES),
            "judge": one.opinions[0].about["words"],
        }
        if block["sets"] or block["tags"]:
            blocks.append(block)
    return blocks


def _slice(name: str, fields: Mapping[str, Any], shape: str) -> dict[str, Any]:
    result = slice_outcome(fields)
    label = f"{name}: {percent(fields['win_rate'])}, interval {spread(fields['interval'])}, {SLICES[result]}"
    drawing = plots.track(fields["win_rate"], fields["interval"], label=label, shape=shape)
    words = SLICES[result] + p_words(fields, result)
    smallest = fields.get("smallest_detectable")
    if result == "unclear" and smallest is not None:  # what a reader must not take for "no change"
        words += f"; one to {percent(1 - smallest)} or {percent(smallest)} would most likely have shown"
    return {"label": name, "fields": fields, "outcome": result, "plot": drawing, "words": words}


def p_words(fields: Mapping[str, Any], result: str) -> str:
    """A p-value in words, corrected for how many were looked at where that is known; alone, where nothing was found."""
    p, how = fields.get("p_adjusted"), ", corrected"
    if p is None:
        p, how = fields.get("p_value"), ""
    if p is None or result == "few":
        return ""
    number = f"p {'below 0.001' if p < 0.001 else f'{p:.3f}' if p < 0.1 else f'{p:.2f}'}{how}"
    if result in ("unclear", "maybe"):
        return f" ({number})"
    chance = (
        "chance is as good as ruled out"
        if p < 0.001
        else "very unlikely to be chance"
        if p < 0.01
        else "unlikely to be chance"
    )
    return f", {chance} ({number})" if p < 0.05 else f" ({number})"


# --- measures ---------------------------------------------------------------------------------------------------


def change_of(measure: Mapping[str, Any]) -> str | None:
    """Against the base: better, worse, changed (where neither is better), maybe (where that may be chance among so many
    measures), unclear, or few, where it has too few prompts; None where it isn't known.
    """
    difference = measure.get("difference") or {}
    interval = difference.get("interval")
    if interval is None:
        return None
    low, high = interval
    if difference.get("n", LEAST_PROMPTS) < LEAST_PROMPTS:
        return "few"
    if low <= 0 <= high:
        return "unclear"
    better = measure.get("better")
    if better not in ("higher", "lower"):
        return "changed"
    if max(difference.get("p_value") or 0, difference.get("p_adjusted") or 0) >= ALPHA:
        return "maybe"
    return "better" if (low > 0) == (better == "higher") else "worse"


NAMES = {"rouge_l": "ROUGE-L", "bleu": "BLEU", "chrf": "chrF", "self_similarity": "self-similarity"}
NAMES |= {"distinct_1": "distinct words", "distinct_2": "distinct pairs of words"}
CHANGES = {
    "worse": "worse",
    "maybe": "may be chance",
    "changed": "changed",
    "better": "better",
    "unclear": "can't be told",
    "few": "too few prompts",
}


def measure_blocks(metrics: Mapping[str, Any], models: Sequence[str]) -> list[dict[str, Any]]:
    """For each of `models` what got worse, what changed, what got better, and what can't be told, by its measures."""
    blocks = []
    for model in models:
        facts, rows = metrics["models"][model], []
        for name, measure in (facts.get("measures") or {}).items():
            found = change_of(measure) if measure else None
            if found is None:
                continue
            base = ((metrics["models"].get(metrics["base"]) or {}).get("measures") or {}).get(name)
            rows.append(
                {
                    "name": measure_name(name),
                    "words": measure.get("words") or "",
                    "change": found,
                    "base": in_unit(base, measure.get("unit")),
                    "value": in_unit(measure, measure.get("unit")),
                    "difference": in_unit(measure["difference"], measure.get("unit"), sign=True),
                }
            )
        rows.sort(key=lambda row: list(CHANGES).index(str(row["change"])))
        if rows:
            names = {kind: [row["name"] for row in rows if row["change"] == kind] for kind in CHANGES}
            blocks.append({"model": model, "rows": rows, "names": names, "on_sets": _on_sets(metrics, model)})
    return blocks


def measure_name(name: str) -> str:
    return NAMES.get(name, name.replace("_", " "))


def _on_sets(metrics: Mapping[str, Any], model: str) -> list[str]:
    """Measures that got worse on challenge sets, each with its numbers."""
    found = []
    for name, about in (metrics.get("challenge_sets") or {}).items():
        models = about.get("models") or {}
        for key, measure in ((models.get(model) or {}).get("measures") or {}).items():
            if measure and change_of(measure) == "worse":
                unit = measure.get("unit")
                before = ((models.get(metrics["base"]) or {}).get("measures") or {}).get(key)
                value, base = in_unit(measure, unit)[0], in_unit(before, unit)[0]
                change, interval = in_unit(measure["difference"], unit, sign=True)
                found.append(
                    f"{capital(measure_name(key))} on the {UNSEEN.sub(' ', name)} set: {value}, the base {base} "
                    f"({change}, {interval})"
                )
    return found


def in_unit(fields: Mapping[str, Any] | None, unit: str | None, *, sign: bool = False) -> tuple[str, str]:
    """A mean and its interval in words: shares as per cent, their differences (with a `sign`) as points."""
    if not fields:
        return "–", ""
    share = unit == "share"
    scale = 100 if share else 1
    interval = fields.get("interval")
    mean, between = measured(
        {"mean": scale * fields["mean"], "interval": [scale * end for end in interval] if interval else None}
    )
    if sign and fields["mean"] > 0:
        mean = f"+{mean}"
    return mean + (" points" if share and sign else "%" if share else ""), between


def worse_words(metrics: Mapping[str, Any], model: str, blocks: Sequence[Mapping[str, Any]]) -> str:
    """What got worse by all that was looked at, and which measures got better, in one note for the model's card."""
    names: list[str] = []
    for row in worse(metrics)["worse"]:
        said = {
            "slice": quoted(row["name"]),
            "challenge set": f"the {UNSEEN.sub(' ', row['name'])} set",
            "task": quoted(row["name"]),
            "measure": measure_name(row["name"]),
        }
        if row["model"] == model and row["kind"] in said:
            names.append(said[row["kind"]])
    better: list[str] = next((block["names"]["better"] for block in blocks if block["model"] == model), [])
    if not names and not any(block["model"] == model for block in blocks):
        return ""
    if names:
        more = [f"{len(names) - WORSE_NAMED} more"] if names[WORSE_NAMED:] else []
        text = f"Got worse: {joined(names[:WORSE_NAMED] + more)}."
    else:
        rows = [row["change"] for block in blocks if block["model"] == model for row in block["rows"]]
        few = rows.count("few")
        text = "Nothing that was measured got detectably worse."
        if few == len(rows):
            text = "So few prompts don't tell what got worse."
        elif few:
            text = f"Nothing got detectably worse, but of {few} of {len(rows)} measures so few prompts don't tell."
    return text + (f" Got better: {joined(better)}." if better else "")


def harness_tables(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Scores of public tests, each with its 95% interval's half width, and whether it differs from the base's."""
    rows, models = [], list(metrics["models"])
    for task, found in (metrics.get("harness") or {}).items():
        for metric, by_model in found.items():
            base = by_model.get(metrics["base"])
            cells = {model: _harness_cell(by_model[model], base) for model in models if by_model.get(model)}
            rows.append({"task": task, "metric": metric, "cells": cells})
    return rows


def _harness_cell(cell: Mapping[str, Any], base: Mapping[str, Any] | None) -> dict[str, Any]:
    error, result = cell.get("standard_error"), "plain"
    if base and base is not cell and error is not None and base.get("standard_error") is not None:
        gap, apart = cell["value"] - base["value"], 1.96 * math.hypot(error, base["standard_error"])
        if abs(gap) > apart:
            way = {"higher": gap > 0, "lower": gap < 0}.get(cell.get("better") or "")
            result = {True: "better", False: "worse", None: "changed"}[way]
    return {"value": cell["value"], "half": None if error is None else 1.96 * error, "change": result}


# --- groups -----------------------------------------------------------------------------------------------------


def fairness_tables(metrics: Mapping[str, Any], judges: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How much more or less a model wins with a group than with the rest: of prompts, and of raters."""
    tables = []
    for kind, title in (("prompts", "Between groups of prompts"), ("raters", "Between groups of people who judged")):
        gaps = [gap for gap in (metrics.get("fairness") or {}).get(kind) or [] if gap.get("mean") is not None]
        gaps.sort(
            key=lambda gap: (gap_outcome(gap) in ("unclear", "few"), gap_outcome(gap) == "few", -abs(gap["mean"]))
        )
        if not gaps:
            continue
        ends = [abs(end) for gap in gaps[:MOST_GAPS] for end in (gap.get("interval") or [gap["mean"]])]
        span = (-max(0.1, *ends) * 1.05, max(0.1, *ends) * 1.05)
        rows = [_gap(gap, judges, span, "prompts" if kind == "prompts" else "people") for gap in gaps[:MOST_GAPS]]
        found = [row for row in rows if row["outcome"] in ("win", "loss")]
        words = (
            f"{len(found)} of {len(gaps)} gaps {'is' if len(found) == 1 else 'are'} larger than chance explains."
            if found
            else f"None of {len(gaps)} gaps is larger than chance explains."
            if len(gaps) > 1
            else "The gap is no larger than chance explains."
        )
        tables.append(
            {
                "title": title,
                "rows": found,
                "others": [row for row in rows if row not in found],
                "words": words,
                "left_out": max(0, len(gaps) - MOST_GAPS),
                "axis": plots.axis(span, percent=False, points=True),
            }
        )
    return tables


def gap_outcome(gap: Mapping[str, Any]) -> str:
    if gap.get("few"):
        return "few"
    low, high = gap.get("interval") or (-1.0, 1.0)
    adjusted = gap.get("p_adjusted")
    if low <= 0 <= high or (adjusted is not None and adjusted >= ALPHA):
        return "unclear"
    return "win" if low > 0 else "loss"


def _gap(gap: Mapping[str, Any], judges: Mapping[str, Any], span: tuple[float, float], units: str) -> dict[str, Any]:
    result = gap_outcome(gap)
    about = judges.get(str(gap.get("judge")))
    label = f"{gap['group']}: {plots.signed_points(gap['mean'])} points"
    drawing = plots.track(
        gap["mean"], gap.get("interval"), label=label, shape=about["shape"] if about else "circle", span=span, line=0.0
    )
    interval = gap.get("interval")
    return {
        "group": gap["group"],
        "model": gap.get("model", ""),
        "judge": about["words"] if about else gap.get("judge", ""),
        "n": gap.get("n"),
        "rest_n": gap.get("rest_n"),
        "units": units,
        "value": _points(gap["mean"]),
        "interval": f"{plots.signed_points(interval[0])} to {plots.signed_points(interval[1])}" if interval else "",
        "words": {"win": "gains more", "loss": "gains less", "unclear": "no gap detected", "few": "too few to tell"}[
            result
        ]
        + p_words(gap, result),
        "outcome": result,
        "plot": drawing,
    }


def _points(share: float) -> str:
    number = plots.signed_points(share)
    return f"{number} point" if number[1:] == "1" else f"{number} points"


# --- what may spoil a win ---------------------------------------------------------------------------------------


def warnings(metrics: Mapping[str, Any]) -> list[str]:
    """Sentences on what changed so much that it may explain a win, or spoil it."""
    base = metrics["models"].get(metrics["base"]) or {}
    found = [sampling_words(metrics)] if sampling_words(metrics) else []
    for model, facts in metrics["models"].items():
        if model != metrics["base"]:
            found += _spoilers(capital(the_model(model)), facts, base)
    return found


def _spoilers(model: str, facts: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    found = []
    before, after = base.get("length"), facts.get("length")
    if before and after and before["mean"] > 0:
        change = after["mean"] / before["mean"] - 1
        if abs(change) >= LENGTH_CHANGE:
            longer = change > 0
            found.append(
                f"{model} gives answers {abs(change):.0%} {'longer' if longer else 'shorter'} than the base's "
                f"({after['mean']:,.0f} against {before['mean']:,.0f} characters on average). If the judge likes "
                f"{'long' if longer else 'short'} answers, a part of the win rate may be length alone."
            )
    if facts.get("kl") and facts["kl"]["mean"] > LARGE_KL:
        found.append(
            f"{model} has moved far from the base: KL {plots.number(facts['kl']['mean'])} nats per response, beyond "
            f"our rule of thumb of {LARGE_KL:.0f}. Models that far off often please their judge in ways that people "
            "don't like: read the examples."
        )
    ended, ended_before = facts.get("finished"), base.get("finished")
    if ended is not None and ended_before is not None and abs(ended - ended_before) >= FINISHED_CHANGE:
        found.append(
            f"{model} ends {percent(ended)} of its responses by itself, the base {percent(ended_before)}; the others "
            "were cut off at the length limit."
        )
    elif ended is not None and ended_before is not None and max(ended, ended_before) < 0.5:
        found.append(
            f"{model} ends {percent(ended)} of its responses by itself, the base {percent(ended_before)}: most were "
            "cut off at the length limit, so this compares beginnings. Allow longer ones."
        )
    return found


def sampling_words(metrics: Mapping[str, Any]) -> str:
    """Which models answered with settings of their own."""
    sampling = metrics.get("sampling") or {}
    settings = sampling.get("settings") or {}
    parts = []
    for model, keys in (sampling.get("differs") or {}).items():
        if keys:
            each = joined(
                [
                    f"{key.replace('_', ' ')} {value}" + (f" instead of {settings[key]}" if key in settings else "")
                    for key, value in keys.items()
                ]
            )
            parts.append(f"{the_model(model)} with {each}")
    if not parts:
        return ""
    return (
        f"Not all models answered under the same settings: {'; '.join(parts)}. A part of their difference may come "
        "from that."
    )
