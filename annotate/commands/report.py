"""`annotate report`: the facts of a project as one JSON document, or as text that fits a terminal."""

import gc
from collections.abc import Mapping, Sequence
from typing import Any

import click

from annotate.commands.common import database_option, json_option, say, use_database

ENOUGH_TAGGED = 20  # as in preferences/stats/agreement.py, which takes long to load
MOST = 30  # rows of a table that is printed as text
Facts = Mapping[str, Any]


@click.command(short_help="Print how far a project is and how well raters agree.")
@click.argument("project")
@database_option
@json_option
def report(project: str, database: str | None, as_json: bool) -> None:
    """Print how far PROJECT is, how well its raters agree, and how reliable each one is.

    docs/guide-owner.md says what each number means.
    """
    from annotate.services.projects import find_project
    from annotate.services.report import project_report

    gc.disable()  # searching what a large report is made of for cycles takes a third of its time
    try:
        with use_database(database) as db, db.read() as session:
            facts = project_report(session, find_project(session, project))
    finally:
        gc.enable()
    say(facts, as_json, report_text(facts))


def report_text(facts: Facts) -> str:
    """What `project_report` found, in lines of words and tables."""
    parts = [_progress(facts), _agreement(facts["agreement"]), *_slices(facts), _raters(facts["people"])]
    parts += [_look_at(facts["people"])] if any(one["findings"] for one in facts["people"]) else []
    return "\n\n".join("\n".join(part) for part in parts)


def _progress(facts: Facts) -> list[str]:
    finish, slots, cost = facts["finish"], facts["slots"], facts["cost"]
    rows = {
        "items": f"{facts['items']}, of which {facts['items_answered']} have an answer"
        + (f"; {facts['gold_items']} gold items" if facts["gold_items"] else ""),
        "answers": f"{facts['answers']} by {facts['raters']} raters"
        + (f", and {facts['surplus']} surplus" if facts["surplus"] else ""),
        "slots": f"{slots['filled']} of {slots['all']} filled",
    }
    if finish["day"]:
        rows["finish"] = f"{finish['day']}, at {_short(finish['per_day'], 1)} answers a day; {finish['left']} to go"
    if facts["guideline"]:
        rows["guideline"] = f"version {facts['guideline']}"
    if facts["flags"]:
        rows["flags"] = ", ".join(f"{flag} {count}" for flag, count in facts["flags"].items())
    if facts["masked"]["responses"]:
        rows["masked"] = f"names in {facts['masked']['responses']} responses of {facts['masked']['items']} items"
    if cost:
        hours = cost["active_seconds"] / 3600
        rows["cost"] = (
            f"{cost['amount']:.2f} {cost['currency']} for {cost['answers']} answers, {hours:.1f} active hours"
        )
    title = facts["project"] + ("   closed" if facts["closed"] else "")
    title += "   SIMULATED: imported answers come from programs" if facts["simulated"] else ""
    return [title, *(f"  {name:<9}  {words}" for name, words in rows.items())]


def _agreement(found: Facts) -> list[str]:
    if not found["units"]:
        return ["Agreement", "  no item has two answers yet"]
    alpha = "krippendorff_alpha"
    names = {
        "raw": "same answer (raw)",
        f"{alpha}_nominal": "Krippendorff's alpha, nominal",
        f"{alpha}_symmetrised": "… each pair in either order",
        f"{alpha}_ordinal": "… ordinal",
        f"{alpha}_interval": "… interval",
        "fleiss_kappa": "Fleiss' kappa",
        "cohen_kappa": f"Cohen's kappa, mean of {found['cohen_kappa_pairs']} pairs of raters",
        "kendall_w": "Kendall's W",
        "tau_b": "Kendall's tau-b",
    }
    rows = [[words, *_estimate(found, name)] for name, words in names.items() if found[name] is not None]
    each = f"{found['units']} pairs of responses with two answers or more, {_short(found['raters_per_unit'], 1)} each"
    said = "  alpha and kappa: 1 is perfect, 0 is chance; 0.8 is asked of reliable data, 0.667 at least"
    return [f"Agreement on {each}", *_table(["", "value", "95% interval"], rows, "<><"), said]


def _slices(facts: Facts) -> list[list[str]]:
    """Tables of agreement by dimension, by tag and over time, of those that there are."""
    tables = []
    for key, title, name, level in (
        ("agreement_by_dimension", "Agreement of ratings, by dimension", "dimension", "ordinal"),
        ("agreement_by_tag", "Agreement by tag", "tag", "nominal"),
        ("agreement_over_time", "Agreement over time", "from", "nominal"),
    ):
        rows = [
            [
                " to ".join(one[end][:16].replace("T", " ") for end in ("from", "to"))
                if name == "from"
                else _for_terminal(one[name]),
                str(one["items"]),
                _short(one["raw"]),
                *_estimate(one, f"krippendorff_alpha_{level}"),
            ]
            for one in facts[key][:MOST]
        ]
        if rows:
            head = ["", "items", "same", f"alpha, {level}", "95% interval"]
            said = _tags(facts[key]) if name == "tag" else []
            tables.append([title, *_table(head, rows, "<>>><"), *_rest(facts[key]), *said])
    return tables


def _tags(tags: Sequence[Facts]) -> list[str]:
    """Where raters clearly agree less than on the whole, and how many tags have too few items to tell."""
    judged = [tag for tag in tags if tag["less"] is not None]
    less = [_for_terminal(tag["tag"]) for tag in judged if tag["less"]]
    few = len(tags) - len(judged)
    where = ", ".join(less[:MOST]) + (", …" if len(less) > MOST else "") if less else "nowhere"
    said = f"  clearly less than on the whole, of {len(judged)} tags compared: {where}"
    return ([said] if judged else []) + ([f"  with fewer than {ENOUGH_TAGGED} items, not judged: {few}"] if few else [])


def _raters(people: Sequence[Facts]) -> list[str]:
    raters = [one for one in people if one["answers"] or one["role"] == "rater"]
    if not raters:
        return ["Raters", "  nobody rates yet"]
    most = sorted(raters, key=lambda person: -person["answers"])
    rows = [
        [
            _for_terminal(one["rater"], 26),
            one["pseudonym"],
            str(one["answers"]),
            "–" if one["median_seconds"] is None else f"{one['median_seconds']:.0f} s",
            "–" if one["gold_accuracy"] is None else f"{one['gold_accuracy']:.0%}",
            _short(one["kappa"] and one["kappa"]["value"]),
            " ".join(_estimate(one, "reliability")),
        ]
        for one in most[:MOST]
    ]
    head = ["rater", "pseudonym", "answers", "median", "checks", "kappa", "reliability"]
    return ["Raters", *_table(head, rows, "<<>>>><"), *_rest(raters, "everybody")]


def _look_at(people: Sequence[Facts]) -> list[str]:
    """What stands out in single raters, each with its evidence."""
    lines = [
        f"  {_for_terminal(one['rater'])}: {'; '.join(_finding(name, one) for name in one['findings'])}"
        for one in people
        if one["findings"]
    ]
    return ["Look at", *lines[:MOST], *_rest(lines)]


def _finding(name: str, one: Facts) -> str:
    def share(found: Facts, key: str) -> str:
        low, high = found["interval"]
        return f"{found[key]:.0%} (95% {low:.0%} to {high:.0%}) of {found['n']}"

    if name == "speed":
        limit = one["speeder"]["limit_seconds"]
        return f"very fast, median {one['median_seconds']:.1f} s where {limit:.1f} s is too fast to read"
    if name == "spam":
        return f"like a coin: reliability {' '.join(_estimate(one, 'reliability'))} from {one['spammer']['n']} answers"
    if name == "length":
        rest = f"pairs, where {one['length_bias']['expected']:.0%} is to be expected"
        return f"prefers the longer response in {share(one['length_bias'], 'longer')} {rest}"
    if name == "position":
        return f"prefers one place on the screen: the first in {share(one['position_bias'], 'first')} pairs"
    if name == "others":
        return f"against the others: sides with them in {share(one['agreement'], 'value')} answers"
    return f"{one['gold_accuracy']:.0%} of the checks right"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = (
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True))
        for row in [head, *rows]
    )
    return [f"  {line}".rstrip() for line in lines]


def _rest(rows: Sequence[Any], whom: str = "all") -> list[str]:
    return [f"  … and {len(rows) - MOST} more; --json lists {whom}"] if len(rows) > MOST else []


def _estimate(found: Facts, name: str) -> list[str]:
    """A number and its interval as two cells."""
    between = found.get(f"{name}_interval")
    return [_short(found[name]), f"({_short(between[0])} to {_short(between[1])})" if between else ""]


def _short(value: float | None, digits: int = 2) -> str:
    if value is None:
        return "–"
    return f"{0.0 if abs(value) < 0.5 * 10**-digits else value:.{digits}f}"  # no -0.00


def _for_terminal(name: str, most: int = 40) -> str:
    """An imported id as one short word that does nothing to the terminal."""
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    return shown if len(shown) <= most else shown[: most - 1] + "…"
