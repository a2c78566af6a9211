"""Win rates of anyone's judgements file: all that can be said of each pair of models, as JSON or as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from align.report.verdict import more_words, too_few
from align.report.words import joined, percent, spread
from preferences.errors import BadInput
from preferences.judgements import Judgement, Prompts, by_prompt, pairs_of, read_judgements
from preferences.stats.bradley_terry import fit_strengths
from preferences.stats.pair import pair_fields
from preferences.stats.significance import holm
from preferences.terminal import cleaned

Fields = dict[str, Any]
MANY_TAGS = 10  # with more tags, those that say nothing for lack of prompts are only counted in the table


def winrates(path: str, baseline: str | None = None) -> Fields:
    """What `align winrate --json` prints: docs/evaluation.md, "Win rates". With `baseline`, pairs with that model only.

    Raises BadInput for a file that is wrong, and for a baseline that nothing is compared with.
    """
    rows = read_judgements(path)
    models = sorted({name for row in rows for name in (row.candidate, row.baseline)})
    if baseline is not None and baseline not in models:
        raise BadInput(f"{path}: nothing is compared with {baseline!r}; the models in it are {joined(models)}")
    said = pairs_of(rows, baseline)
    found = {pair: by_prompt(verdicts, *pair) for pair, verdicts in said.items()}
    strengths, why = _strengths(found) if len(models) > 2 else (None, None)
    return {
        "format": 1,
        "file": str(path),
        "judgements": len(rows),
        "prompts": len({row.prompt for row in rows}),
        "judges": sorted({row.judge for row in rows if row.judge}),
        "raters": len({row.rater for row in rows if row.rater}),
        "pairs": [
            {
                "candidate": pair[0],
                "baseline": pair[1],
                **fields_of(prompts),
                "judges": _judges(said[pair], pair),
                "tags": _tags(prompts),
            }
            for pair, prompts in found.items()
            if baseline in (None, pair[1])
        ],
        "many_models": strengths,
        "many_models_missing": why,
    }


def fields_of(prompts: Prompts, chosen: Sequence[int] | None = None) -> Fields:
    """The fields of a pair, of all its prompts or of those `chosen` by number."""
    kept = range(len(prompts.prompts)) if chosen is None else chosen
    place = {number: index for index, number in enumerate(kept)}
    cells = None
    if prompts.cells is not None:
        cells = [cell._replace(prompt=place[cell.prompt]) for cell in prompts.cells if cell.prompt in place]
    lengths = [prompts.candidate_length, prompts.baseline_length, prompts.difficulty]
    candidate, other, difficulty = (None if one is None else one[list(kept)] for one in lengths)
    return pair_fields(
        prompts.preferences[list(kept)],
        candidate_length=candidate,
        baseline_length=other,
        difficulty=difficulty,
        cells=cells,
    )


def _judges(rows: Sequence[Judgement], pair: tuple[str, str]) -> dict[str, Fields]:
    """The fields by each judge alone, where there are several; people who are named by `rater` only are "people"."""
    found: dict[str, list[Judgement]] = {}
    for row in rows:
        found.setdefault(row.judge or ("people" if row.rater else "not named"), []).append(row)
    return {name: fields_of(by_prompt(found[name], *pair)) for name in sorted(found)} if len(found) > 1 else {}


def _tags(prompts: Prompts) -> dict[str, Fields]:
    """The fields of each tag's prompts, with `p_adjusted`: corrected for having asked of so many tags (Holm)."""
    tags: dict[str, list[int]] = {}
    for number, names in enumerate(prompts.tags):
        for name in names:
            tags.setdefault(name, []).append(number)
    fields = {name: fields_of(prompts, tags[name]) for name in sorted(tags)}
    for one, p in zip(fields.values(), holm([one["p_value"] for one in fields.values()]), strict=True):
        one["p_adjusted"] = p
    return fields


def _strengths(found: Mapping[tuple[str, str], Prompts]) -> tuple[dict[str, Fields] | None, str | None]:
    """Bradley-Terry strengths of all models from the pairs' prompts, or None and why there are none."""
    rows = [
        (prompt, *pair, float(preference))
        for pair, prompts in found.items()
        for prompt, preference in zip(prompts.prompts, prompts.preferences, strict=True)
    ]
    try:
        return fit_strengths(*zip(*rows, strict=True)), None
    except ValueError as error:
        return None, str(error)


def in_words(found: Fields) -> str:
    """The same for people: the pairs as a table and a sentence each, their judges and tags, an order of many models."""
    found = cleaned(found)
    people = f", {found['raters']:,} raters" if found["raters"] else ""
    judges = f", judged by {joined(found['judges'])}" if found["judges"] else ""
    parts = [f"{found['judgements']:,} judgements of {found['prompts']:,} prompts{judges}{people}"]
    head = ["candidate", "baseline", "prompts", "ties", "win rate", "95% interval", "at equal length"]
    parts.append(_table([head, *([one["candidate"], one["baseline"], *_cells(one)] for one in found["pairs"])]))
    parts.append("\n".join(sentence(one) for one in found["pairs"]))
    for one in found["pairs"]:
        pair = f"{one['candidate']} against {one['baseline']}"
        if one["judges"]:
            rows = [[name, *_cells(judge)] for name, judge in one["judges"].items()]
            parts.append(f"{pair} by judge\n{_table([['judge', *head[2:]], *rows])}")
        if one["tags"]:
            few = [name for name, tag in one["tags"].items() if too_few(tag)]
            left_out = few if len(one["tags"]) > MANY_TAGS else []
            shown = {name: tag for name, tag in one["tags"].items() if name not in left_out}
            rows = [[name, *_cells(tag), _p(tag["p_adjusted"])] for name, tag in shown.items()]
            lines = [f"{pair} by tag" + ("; p is corrected for their number (Holm)" if rows else "")]
            lines += [_table([["tag", *head[2:], "p"], *rows])] if rows else []
            lines += [f"{len(left_out)} tags have too few prompts to say anything; --json has them"] if left_out else []
            parts.append("\n".join(lines))
    if found["many_models"]:
        rows = [["model", "strength", "95% interval", "against the others"]]
        for name, model in found["many_models"].items():
            low, high = model["interval"] or (None, None)
            ends = "" if low is None else f"{low:+.2f} to {high:+.2f}"
            rows.append([name, f"{model['strength']:+.2f}", ends, percent(model["win_rate"])])
        parts.append(f"All models, by strength (Bradley-Terry, log-odds)\n{_table(rows)}")
    elif found["many_models_missing"]:
        parts.append(f"No order of all models: {found['many_models_missing']}.")
    methods = joined(sorted({one["method"] for one in found["pairs"]}))
    parts.append(f"A tie counts half. Intervals of win rates: {methods}. --json has more, such as the bootstrap's.")
    return "\n\n".join(parts)


def sentence(pair: Fields) -> str:
    """What the numbers of a pair carry, and no more."""
    candidate, baseline, rate = pair["candidate"], pair["baseline"], pair["win_rate"]
    low, high = pair["interval"]
    seen = f"{percent(rate)} of {pair['n']:,} prompts, 95% interval {spread(pair['interval'])}"
    if too_few(pair):
        text = f"Too little is known to say whether {candidate} or {baseline} is better: {candidate} is preferred in"
        text += f" {seen}."
    elif low > 0.5:
        text = f"{candidate} is preferred to {baseline} in {seen}."
    elif high < 0.5:
        text = f"{baseline} is preferred to {candidate}, which is preferred in {seen}."
    else:
        text = f"No difference between {candidate} and {baseline} is shown: {seen}."
        if pair["more_prompts"]:
            text += f" {more_words(pair)}"
    controlled = pair["length_controlled_win_rate"]
    error = pair["length_controlled_standard_error"]
    if controlled is not None:
        known = "these prompts can't tell" if error is None else f"{percent(controlled)} (standard error {error:.1%})"
        text += f" At equal length: {known}."
    return f"{text} If you look as verdicts come in: {spread(pair['anytime_interval'])}."


def _cells(fields: Fields) -> list[str]:
    controlled = fields["length_controlled_win_rate"]
    equal = "" if fields["length_controlled_standard_error"] is None else percent(controlled)
    rate = percent(fields["win_rate"])
    return [f"{fields['n']:,}", f"{fields['ties']:,}", rate, spread(fields["interval"]), equal]


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns under their heads: texts to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = [not any(row[at][:1].isdigit() or row[at][:1] in "+-<" for row in rows[1:]) for at in range(len(widths))]
    left[0] = True
    lines = []
    for row in rows:
        cells = zip(row, widths, left, strict=True)
        lines.append("  ".join(f"{cell:<{w}}" if to_left else f"{cell:>{w}}" for cell, w, to_left in cells).rstrip())
    return "\n".join(lines)
