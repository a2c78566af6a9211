"""UltraFeedback: an instruction and its completions, each rated by GPT-4 on four aspects and overall.

Shape: https://github.com/OpenBMB/UltraFeedback, README (2023-12-29), and the data set openbmb/UltraFeedback on the hub,
whose completions also have `critique`, `overall_score` and `fine-grained_score`. Ratings are texts, and may be "N/A".

    {"source": …, "instruction": …, "models": […], "completions": [
        {"model": …, "response": …, "critique": …, "overall_score": 7.5, "fine-grained_score": 4.25,
         "annotations": {"helpfulness": {"Rating": "4", "Rationale": …}, "honesty": {…}, …}}, …]}

The ranks are those of `overall_score`, else of the mean rating. Several raters become one: the mean of their ratings.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from preferences.contract import Item
from preferences.formats.records import MADE_ID, Record, by_split, count_lost, left_out, make_item, ranks_of
from preferences.formats.rows import Files, Lost, Row, read_rows
from preferences.formats.turns import one_text

RATER = "gpt-4"
OVERALL = "overall_score"


class _Annotation(Row):
    Rating: str | float | None = None
    Rationale: str | None = None


class _Completion(Row):
    model: str | None = None
    response: str
    critique: str | None = None
    overall_score: float | str | None = None
    annotations: dict[str, _Annotation | list[_Annotation]] = Field(default={})


class _Row(Row):
    source: str | None = None
    instruction: str
    models: list[str | None] | None = None
    completions: list[_Completion]


def read(path: str | Path, lost: Lost) -> Iterator[Item]:
    for where, row in read_rows(path, _Row, lost):
        if len(row.completions) < 2:
            left_out(lost, "single", "rows have fewer than two completions")
            continue
        given = [_ratings(completion, lost) for completion in row.completions]
        everywhere = [name for name in given[0] if all(name in ratings for ratings in given)]
        if dropped := len({name for ratings in given for name in ratings} - set(everywhere)):
            lost["`Rating`", "aspects are not rated for all completions of a row, and are left out"] += dropped
        scores = _scores([{name: ratings[name] for name in everywhere} for ratings in given])
        answer: dict[str, Any] = {"rater": RATER, "ranks": ranks_of(scores)}
        answer["ratings"] = {name: [ratings[name] for ratings in given] for name in everywhere}
        answer["rationale"] = _reasons(row.completions)
        item = make_item(
            where,
            lost,
            prompt=[{"role": "user", "content": row.instruction}],
            responses=[
                {"messages": [{"role": "assistant", "content": one.response}], "model": one.model or None}
                for one in row.completions
            ],
            tags=[row.source] if row.source else None,
            answers=[answer] if everywhere else None,
        )
        if item:
            yield item


def _ratings(completion: _Completion, lost: Lost) -> dict[str, float]:
    """{aspect: rating} of one completion; what is no number, such as "N/A", is counted."""
    said: dict[str, str | float | None] = {OVERALL: completion.overall_score}
    for name, annotation in completion.annotations.items():
        said[name] = annotation.Rating if isinstance(annotation, _Annotation) else None
    ratings = {}
    for name, value in said.items():
        try:
            number = float(value) if value is not None else None
        except ValueError:
            number = None
        if number is not None and number - number == 0:
            ratings[name] = number
        elif value is not None:
            lost["`Rating`", "ratings are no number, and are left out"] += 1
    return ratings


def _scores(given: Sequence[Mapping[str, float]]) -> list[float]:
    return [one[OVERALL] if OVERALL in one else sum(one.values()) / max(len(one), 1) for one in given]


def _reasons(completions: Sequence[_Completion]) -> str | None:
    """Critiques and rationales as one text, by response."""
    said = []
    for number, one in enumerate(completions, start=1):
        notes = [one.critique] if one.critique else []
        for name, annotation in one.annotations.items():
            if isinstance(annotation, _Annotation) and annotation.Rationale:
                notes.append(f"{name}: {annotation.Rationale}")
        said += [f"Response {number}: {note}" for note in notes]
    return "\n".join(said) or None


def write(records: Sequence[Record], name: str, lost: Lost) -> Files:
    files: Files = {}
    for file, part in by_split(records).items():
        rows = [row for record in part if (row := _row(record, lost)) is not None]
        if rows:
            files[file] = rows
    people = [one.item.answers for one in records if {answer.rater for answer in one.item.answers} - {RATER}]
    lost["raters", f"answers become one annotator's, which reads back as {RATER}'s"] += sum(map(len, people))
    named = sum(not one.item.id.startswith(MADE_ID) for one in records)
    lost["ids", "items have an id, for which this format has no place"] += named
    count_lost(records, ("ties", "probabilities", "weights", "raters", "models", "ratings"), lost)
    return files


def _row(record: Record, lost: Lost) -> dict[str, Any] | None:
    item = record.item
    instruction = one_text(item.prompt, "user")
    texts = [one_text(response.messages, "assistant") for response in item.responses]
    if instruction is None or any(text is None for text in texts):
        left_out(lost, "conversations", "items are more than one question and one reply")
        return None
    if record.ranks is None:
        left_out(lost, "unrated", "items have no answer")
        return None
    ratings = mean_ratings(record)
    overall = ratings.pop(OVERALL, None) or [float(1 + max(record.ranks) - rank) for rank in record.ranks]
    if ranks_of(overall) != ranks_of([-rank for rank in record.ranks]):
        left_out(lost, "contradictions", "items are ranked otherwise than their overall_score says")
        return None
    completions = [
        {
            "model": response.model,
            "response": text,
            "overall_score": overall[place],
            "annotations": {name: {"Rating": _plain(values[place])} for name, values in ratings.items()},
        }
        for place, (response, text) in enumerate(zip(item.responses, texts, strict=True))
    ]
    return {"instruction": instruction, "models": [one["model"] for one in completions], "completions": completions}


def mean_ratings(record: Record) -> dict[str, list[float]]:
    """The mean of what the raters gave, of each dimension that some of them rated: {name: one number a response}."""
    names = dict.fromkeys(name for answer in record.item.answers for name in answer.ratings or {})
    means = {}
    for name in names:
        given = [answer.ratings[name] for answer in record.item.answers if answer.ratings and name in answer.ratings]
        means[name] = [sum(values) / len(values) for values in zip(*given, strict=True)]
    return means


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
