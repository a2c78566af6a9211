"""Argilla 2: records with fields, what users answered to each question, and metadata.

Shape: https://github.com/argilla-io/argilla (2.8; argilla/src/argilla/records/_resource.py, `Record.to_dict`), which is
what `dataset.records.to_json(path)` writes and `from_json` reads: one JSON array.

    {"id": …, "fields": {"prompt": …, "response-1": …, "response-2": …}, "metadata": {"group": …}, "suggestions": {…},
     "responses": {"ranking": [{"value": ["response-2", "response-1"], "user_id": "3fa8…"}],
                   "helpful-response-1": [{"value": 4, "user_id": "3fa8…"}], …}, "vectors": {}, "_server_id": …}

A ranking question names fields, the best first; the SDK drops the ranks, so that ties can't be told, but for two
responses a `strength` of 0 is one. A label question may name the better field, or say "tie", as `better` does where a
tie has no strength. A rating question is about the field
that its name begins or ends with; a text question called rationale, reason, comment or feedback is the reason. Users
are UUIDs: raters with other ids get one made of their id.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from pydantic import Field

from preferences.contract import Answer, Item
from preferences.errors import BadInput
from preferences.formats.records import (
    OWN_GROUP,
    Record,
    count_decisions,
    count_lost,
    fitting,
    left_out,
    make_item,
    ranks_of,
    whole_ratings,
)
from preferences.formats.rows import Files, Lost, Row, read_rows
from preferences.formats.turns import PROMPTS, Turns, dump, one_text, series

REASONS = ("rationale", "reason", "comment", "feedback")
TIES = ("tie", "equal", "same", "both", "neither")


class _Response(Row):
    value: Any
    user_id: str


class _Row(Row):
    id: str | int | None = None
    fields_: dict[str, Any] = Field(alias="fields")
    metadata: dict[str, Any] | None = None
    suggestions: dict[str, Any] | None = None
    responses: dict[str, list[_Response] | None] | None = None
    vectors: Any = None
    status: Any = None  # of the record: whether it has as many answers as it wants
    server_id: Any = Field(default=None, alias="_server_id")


def read(path: str | Path, lost: Lost) -> Iterator[Item]:
    rows = list(read_rows(path, _Row, lost))
    named = ((name, row) for _, row in rows for said in _all(row) for name in _order(said.value) or ())
    ranked = {series(name) for name, row in named if name in row.fields_}
    for where, row in rows:
        lost["suggestions", "records have a suggestion, which no person gave, and it is left out"] += bool(
            row.suggestions
        )
        prompt, responses = _parts(row, ranked, where, lost)
        names = list(responses)
        if len(names) < 2:
            raise BadInput(
                f"{where}: fields: {', '.join(row.fields_) or 'none'}; a prompt and two responses are wanted"
            )
        metadata = dict(row.metadata or {})
        models = [metadata.pop(f"model-{number}", None) for number in range(1, len(names) + 1)]
        group, tags = metadata.pop("group", None), metadata.pop("tags", None)
        metadata.pop("split", None)
        lost["metadata", "metadata values have no place in an import line"] += len(metadata)
        item = make_item(
            where,
            lost,
            id=row.id,
            prompt=prompt,
            responses=[
                {"messages": [{"role": "assistant", "content": text}], "model": model}
                for text, model in zip(responses.values(), models, strict=True)
            ],
            group=group,
            tags=tags,
            answers=list(_answers(row, names, lost)) or None,
        )
        if item:
            yield item


def _all(row: _Row) -> Iterator[_Response]:
    for said in (row.responses or {}).values():
        yield from said or ()


def _order(value: Any) -> list[str] | None:
    """The names that a ranking names, the best first; None if the value is no ranking."""
    if not isinstance(value, list) or not value:
        return None
    names = [one.get("value") if isinstance(one, dict) else one for one in value]
    return [name for name in names if isinstance(name, str)] if all(isinstance(name, str) for name in names) else None


def _parts(row: _Row, ranked: set[str], where: str, lost: Lost) -> tuple[Turns, dict[str, str]]:
    """The prompt, and the responses by the names of their fields: a series that rankings name, or all other texts."""
    fields = {name: value for name, value in row.fields_.items() if value is not None}
    rest = [name for name in fields if series(name) not in ranked]
    prompt = next((name for name in PROMPTS if name in rest), rest[0] if rest else None)
    if prompt is None:
        raise BadInput(f"{where}: fields: none of them is a prompt")
    turns = fields[prompt]
    if isinstance(turns, str):
        turns = [{"role": "user", "content": turns}]
    system = fields.get("system", fields.get("system_prompt"))
    if isinstance(system, str) and system and isinstance(turns, list):
        turns = [{"role": "system", "content": system}, *turns]
    chosen = [name for name in fields if series(name) in ranked] or [
        name for name in fields if name not in (prompt, "system", "system_prompt", "id")
    ]
    for name in chosen:
        if not isinstance(fields[name], str):
            raise BadInput(f"{where}: fields.{name}: a {type(fields[name]).__name__}, not a text")
    if not isinstance(turns, list) or not all(
        isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in turns
    ):
        raise BadInput(f"{where}: fields.{prompt}: neither a text nor a list of turns")
    others = set(fields) - {prompt, *chosen, "id", *(("system", "system_prompt") if system else ())}
    lost["fields", "fields are neither prompt nor response, and are left out"] += len(others)
    return turns, {name: fields[name] for name in chosen}


def _answers(row: _Row, names: Sequence[str], lost: Lost) -> Iterator[dict[str, Any]]:
    """One answer a user, of all that they said to the questions."""
    users: dict[str, dict[str, Any]] = {}
    for question, given in (row.responses or {}).items():
        for one in given or ():
            users.setdefault(one.user_id, {})[question] = one.value
    for user, said in users.items():
        answer = _answer(said, names, lost)
        if answer is None:
            left_out(lost, "unranked", "answers do not rank all responses")
        else:
            yield {"rater": user, **answer}


def _answer(said: Mapping[str, Any], names: Sequence[str], lost: Lost) -> dict[str, Any] | None:
    answer: dict[str, Any] = {}
    ratings: dict[str, dict[str, float]] = {}
    for question, value in said.items():
        if (order := _order(value)) is not None and sorted(order) == sorted(names):
            answer["ranks"] = _ranks(value, order, names)
        elif isinstance(value, str) and question.lower().split("-")[0] in REASONS:
            answer["rationale"] = value
        elif isinstance(value, str) and (value in names or (value.lower() in TIES and "ranks" not in answer)):
            answer["ranks"] = [1 if name == value or value not in names else 2 for name in names]
        elif question == "strength" and isinstance(value, int):
            answer["strength"] = value
        elif isinstance(value, int | float) and (about := _about(question, names)):
            ratings.setdefault(about[0], {})[about[1]] = value
        else:
            left_out(
                lost, "questions", "answers to a question say neither which is better, nor how good one is, nor why"
            )
    if whole := whole_ratings(ratings, names, lost):
        answer["ratings"] = whole
    strength = answer.pop("strength", None)
    if "ranks" not in answer and strength == 0:
        answer["ranks"] = [1] * len(names)
    if "ranks" not in answer and whole:
        answer["ranks"] = ranks_of([sum(values) for values in zip(*whole.values(), strict=True)])
    if "ranks" not in answer:
        return None
    if strength is not None:
        one_first = len(names) == 2 and answer["ranks"][0] < answer["ranks"][1]
        answer["strength"] = fitting(-strength if one_first else strength, answer["ranks"], lost)
    return answer


def _ranks(value: Sequence[Any], order: Sequence[str], names: Sequence[str]) -> list[int]:
    """Ranks in the order of the fields; the server's own exports say `rank`, ties included."""
    given = [one["rank"] for one in value if isinstance(one, dict) and isinstance(one.get("rank"), int)]
    of = dict(zip(order, given if len(given) == len(order) else range(len(order)), strict=True))
    return [1 + sum(of[other] < of[name] for other in names) for name in names]


def _about(question: str, names: Sequence[str]) -> tuple[str, str] | None:
    """("helpful", "response-1") of "helpful-response-1", "response-1-helpful" or "helpful_response-1"."""
    for name in names:
        if found := re.fullmatch(rf"(?:(.+)[-_.])?{re.escape(name)}(?:[-_.](.+))?", question):
            return found[1] or found[2] or "rating", name
    return None


def write(records: Sequence[Record], name: str, lost: Lost) -> Files:
    dialogues = any(one_text(record.item.prompt, "user") is None for record in records)
    rows = [row for record in records if (row := _record(record, dialogues, lost)) is not None]
    kept = (
        "unanswered",
        "ties",
        "probabilities",
        "weights",
        "raters",
        "models",
        "tags",
        "groups",
        "strength",
        "ratings",
        "reasons",
    )
    count_decisions(records, lost)
    count_lost(records, kept, lost)
    return {"records.json": rows}


def _record(record: Record, dialogues: bool, lost: Lost) -> dict[str, Any] | None:
    item = record.item
    texts = [one_text(response.messages, "assistant") for response in item.responses]
    if None in texts:
        left_out(lost, "conversations", "items have a response of several turns")
        return None
    prompt = dump(item.prompt) if dialogues else one_text(item.prompt, "user")
    metadata: dict[str, Any] = {"split": record.split} if record.split else {}
    if item.group and not item.group.startswith(OWN_GROUP):
        metadata["group"] = item.group
    if item.tags:
        metadata["tags"] = item.tags
    metadata |= {
        f"model-{number}": response.model for number, response in enumerate(item.responses, start=1) if response.model
    }
    responses: dict[str, list[dict[str, Any]]] = {}
    for answer in item.answers:
        user = _user(answer.rater, lost)
        for question, value in _questions(answer, lost):
            responses.setdefault(question, []).append({"value": value, "user_id": user})
    fields = {f"response-{number}": text for number, text in enumerate(texts, start=1)}
    return {
        "id": item.id,
        "fields": {"prompt": prompt, **fields},
        "metadata": metadata,
        "suggestions": {},
        "responses": responses,
        "vectors": {},
    }


def _user(rater: str, lost: Lost) -> str:
    try:
        if str(UUID(rater)) == rater:
            return rater
    except ValueError:
        pass
    lost["raters", "answers' raters are no UUID, and are called by one made of their id"] += 1
    return str(uuid5(NAMESPACE_URL, rater))


def _questions(answer: Answer, lost: Lost) -> Iterator[tuple[str, Any]]:
    count = len(answer.ranks)
    tied = len(set(answer.ranks)) < count
    if tied and count > 2:
        left_out(lost, "ties", "answers have ties among three responses or more")
        return
    if not tied:
        yield (
            "ranking",
            [f"response-{place + 1}" for place in sorted(range(count), key=lambda place: answer.ranks[place])],
        )
    if answer.strength is not None:
        yield "strength", abs(answer.strength)
    elif tied:
        yield "better", "tie"
    for name, values in (answer.ratings or {}).items():
        yield from ((f"{name}-response-{number}", value) for number, value in enumerate(values, start=1))
    if answer.rationale:
        yield "rationale", answer.rationale
