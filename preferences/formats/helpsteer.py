"""HelpSteer 1 and 2: a row is one response, rated 0 to 4 on five attributes; a prompt's rows follow each other.

Shape: the data sets nvidia/HelpSteer and nvidia/HelpSteer2 on the hub (README of 2025). A dialogue is one text, with
"<extra_id_1>Assistant" and "<extra_id_1>User" on lines between the turns. In `disagreements` each attribute is a list.

    {"prompt": …, "response": …, "helpfulness": 3, "correctness": 4, "coherence": 4, "complexity": 2, "verbosity": 1}

The ranks are those of helpfulness. Several raters become one, by the mean of their ratings.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from preferences.contract import Item
from preferences.formats.records import Record, by_split, count_lost, left_out, make_item, ranks_of
from preferences.formats.rows import Files, Lost, Row, read_rows
from preferences.formats.turns import Turns, alternates, one_text
from preferences.formats.ultrafeedback import mean_ratings
from preferences.shapes import Message

RATER = "helpsteer"
ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
_MARK = re.compile(r"\n<extra_id_1>(Assistant|User)\n")
_ROLES = {"User": "user", "Assistant": "assistant"}


class _Row(Row):
    prompt: str
    response: str
    helpfulness: float | list[float]
    correctness: float | list[float] | None = None
    coherence: float | list[float] | None = None
    complexity: float | list[float] | None = None
    verbosity: float | list[float] | None = None


def read(path: str | Path, lost: Lost) -> Iterator[Item]:
    for prompt, group in groupby(read_rows(path, _Row, lost), key=lambda one: one[1].prompt):
        rows = list(group)
        if len(rows) < 2:
            left_out(lost, "single", "prompts have one response only")
            continue
        ratings = {}
        for name in ATTRIBUTES:
            given = [getattr(row, name) for _, row in rows]
            lost["disagreements", "ratings are several raters', of whom the mean is kept"] += sum(
                isinstance(value, list) for value in given
            )
            numbers = [_mean(value) for value in given]
            if None not in numbers:
                ratings[name] = numbers
        answer = (
            {"rater": RATER, "ranks": ranks_of(ratings["helpfulness"]), "ratings": ratings}
            if "helpfulness" in ratings
            else None
        )
        responses = [{"messages": [{"role": "assistant", "content": row.response}]} for _, row in rows]
        item = make_item(
            rows[0][0], lost, prompt=prompt_turns(prompt), responses=responses, answers=[answer] if answer else None
        )
        if item:
            yield item


def _mean(value: float | list[float] | None) -> Any:
    if isinstance(value, list):
        return sum(value) / len(value) if value else None
    return value


def prompt_turns(prompt: str) -> Turns:
    """The conversation that a HelpSteer prompt is."""
    first, *rest = _MARK.split(prompt)
    turns = zip(rest[::2], rest[1::2], strict=True)
    return [{"role": "user", "content": first}, *({"role": _ROLES[name], "content": text} for name, text in turns)]


def prompt_text(prompt: Sequence[Message]) -> str | None:
    """The same the other way; None for a system prompt, a tool's turn, or a mark inside of a turn."""
    if not alternates(prompt) or prompt[0].role == "system" or any("<extra_id_1>" in turn.content for turn in prompt):
        return None
    parts = [prompt[0].content]
    for turn in prompt[1:]:
        parts += [f"\n<extra_id_1>{turn.role.title()}\n", turn.content]
    return "".join(parts)


def write(records: Sequence[Record], name: str, lost: Lost) -> Files:
    files: Files = {}
    for file, part in by_split(records).items():
        if rows := [row for record in part for row in _rows(record, lost)]:
            files[file] = rows
    count_lost(records, ("ratings", "ties", "probabilities", "weights"), lost)
    return files


def _rows(record: Record, lost: Lost) -> list[dict[str, Any]]:
    prompt = prompt_text(record.item.prompt)
    texts = [one_text(response.messages, "assistant") for response in record.item.responses]
    if prompt is None or any(text is None for text in texts):
        left_out(lost, "conversations", "items have a system prompt, a tool's turn, or responses of several turns")
        return []
    ratings = mean_ratings(record)
    if record.ranks is None or "helpfulness" not in ratings:
        left_out(lost, "unrated", "items have no rating of helpfulness")
        return []
    if others := [name for name in ratings if name not in ATTRIBUTES]:
        lost["ratings", f"ratings are not of {', '.join(ATTRIBUTES)}, and are left out"] += len(others)
    if ranks_of(ratings["helpfulness"]) != ranks_of([-rank for rank in record.ranks]):
        lost[
            "ranks", "items are ranked otherwise than their helpfulness says, and this format holds the rating only"
        ] += 1
    kept = {name: [_whole(value) for value in ratings[name]] for name in ATTRIBUTES if name in ratings}
    return [
        {"prompt": prompt, "response": text, **{name: values[place] for name, values in kept.items()}}
        for place, text in enumerate(texts)
    ]


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value
