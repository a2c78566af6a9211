"""Label Studio: tasks, with pairwise or ranker annotations and who completed them.

Shape: https://github.com/HumanSignal/label-studio, docs/source/guide/export.md ("JSON"), tags/{pairwise,ranker}.md,
templates/{llm_side_by_side,generative-llm-ranker}.md, and label_studio/tasks/serializers.py for `completed_by` (2026).
Tasks without annotations are items without answers.

    {"id": 1, "data": {"prompt": …, "answer1": …, "answer2": …}, "annotations": [{"completed_by": 10, "lead_time": 4.3,
      "created_at": "2026-03-09T22:16:08Z", "was_cancelled": false, "result": [
        {"from_name": "comparison", "to_name": "comparison", "type": "pairwise", "value": {"selected": "left"}}]}]}
    {"data": {"prompt": …, "items": [{"id": …, "title": …, "body": …}, …]}, "annotations": [{…, "result": [
        {"from_name": "rank", "to_name": "answers", "type": "ranker", "value": {"ranker": ["b", "a"]}}]}]}
                                           newer releases: "value": {"ranker": {"rank": ["b", "a"]}}

Where all items are pairs and nobody ties them, pairwise tasks are written, else a ranker with a bucket a rank, for the
ties; labeling_config.xml shows them. Ratings are `rating` results, the strength is a `number`, the reason a `textarea`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from pydantic import Field

from preferences.contract import Answer, Item
from preferences.errors import BadInput
from preferences.files import sha256_json
from preferences.formats.records import (
    OWN_GROUP,
    Record,
    count_decisions,
    count_lost,
    fitting,
    left_out,
    make_item,
    whole_ratings,
)
from preferences.formats.rows import Files, Lost, Row, read_rows
from preferences.formats.turns import PROMPTS, ROLES, dump, one_text, series

BUCKET = "rank-"


class _Result(Row):
    type: str | None = None
    from_name: str | None = None
    to_name: str | None = None
    value: dict[str, Any] | None = None


class _Annotation(Row):
    id: int | str | None = None
    completed_by: int | dict[str, Any] | None = None
    result: list[_Result] = Field(default=[])
    was_cancelled: bool | None = None
    lead_time: float | None = None
    created_at: str | None = None


class _Row(Row):
    id: int | str | None = None
    data: dict[str, Any]
    annotations: list[_Annotation] | None = None
    predictions: Any = None


# What Label Studio says of every task of an export, and import lines needn't know.
ABOUT_TASKS = {
    *("created_at", "updated_at", "updated_by", "project", "drafts", "meta", "inner_id", "file_upload"),
    *("total_annotations", "cancelled_annotations", "total_predictions"),
    *("comment_count", "unresolved_comment_count", "last_comment_updated_at", "comment_authors"),
}


def read(path: str | Path, lost: Lost) -> Iterator[Item]:
    for where, row in read_rows(path, _Row, lost, lambda row: {k: v for k, v in row.items() if k not in ABOUT_TASKS}):
        lost["predictions", "tasks have predictions, which no person gave, and they are left out"] += bool(
            row.predictions
        )
        data = dict(row.data)
        prompt, texts, names, models = _parts(data, where)
        answers: list[dict[str, Any]] = []
        for number, annotation in enumerate(row.annotations or ()):
            answer = _answer(annotation, names, f"{where}: annotations[{number}]", lost)
            if answer is None:
                left_out(lost, "unranked", "annotations were cancelled or do not rank all responses")
            elif any(other["rater"] == answer["rater"] for other in answers):
                left_out(lost, "repetitions", "annotations are a rater's second one of a task")
            else:
                answers.append(answer)
        key = data.pop("id", None)
        group, tags = data.pop("group", None), data.pop("tags", None)
        data.pop("split", None)
        lost["`data`", "values of tasks have no place in an import line"] += len(data)
        item = make_item(
            where,
            lost,
            id=key if key is not None else (f"task-{row.id}" if row.id is not None else None),
            prompt=prompt,
            responses=[
                {"messages": [{"role": "assistant", "content": text}], "model": model}
                for text, model in zip(texts, models, strict=True)
            ],
            group=group,
            tags=tags,
            answers=answers or None,
        )
        if item:
            yield item


def _parts(data: dict[str, Any], where: str) -> tuple[Any, list[Any], list[str], list[Any]]:
    """The prompt, the texts, their names in results, and the models of a task; what was taken is gone from `data`."""
    said = next((data.pop(name) for name in ("messages", *PROMPTS) if name in data), None)
    if not isinstance(said, str | list) or not said:
        raise BadInput(f"{where}: data: neither `prompt` nor `messages` says what was asked")
    prompt = [{"role": "user", "content": said}] if isinstance(said, str) else said
    if not all(
        isinstance(turn, dict) and turn.get("role") in ROLES and isinstance(turn.get("content"), str) for turn in prompt
    ):
        raise BadInput(f"{where}: data.messages: not a list of {{role, content}}")
    items = data.pop("items", None)
    if isinstance(items, list):
        if not all(isinstance(one, dict) and isinstance(one.get("id"), str | int) for one in items):
            raise BadInput(f"{where}: data.items: not a list of {{id, title, body}}")
        texts = [one.get("body", one.get("title")) for one in items]
        names = [str(one["id"]) for one in items]
    else:
        numbered = Counter(series(key) for key in data if isinstance(data[key], str) and series(key) != key)
        most = max(numbered, key=lambda one: numbered[one], default="")  # "answer" of answer1, answer2
        names = [key for key in data if isinstance(data[key], str) and series(key) == most != key]
        texts = [data.pop(name) for name in names]
    if len(texts) < 2 or not all(isinstance(text, str) for text in texts) or len(set(names)) < len(names):
        raise BadInput(f"{where}: data: neither `answer1`, `answer2` nor `items` with two texts or more")
    models = data.pop("models", None)
    return (
        prompt,
        texts,
        names,
        models if isinstance(models, list) and len(models) == len(texts) else [None] * len(texts),
    )


def _answer(annotation: _Annotation, names: list[str], where: str, lost: Lost) -> dict[str, Any] | None:
    """An answer, or None where the annotation was cancelled or ranks nothing."""
    if annotation.was_cancelled:
        return None
    answer: dict[str, Any] = {"rater": _rater(annotation, where), "seconds": annotation.lead_time}
    answer["submitted_at"] = annotation.created_at
    ratings: dict[str, dict[str, float]] = {}
    for result in annotation.result:
        value = result.value or {}
        if result.type == "pairwise" and len(names) == 2 and value.get("selected") in ("left", "right"):
            answer["ranks"] = [1, 2] if value["selected"] == "left" else [2, 1]
        elif result.type == "ranker" and (ranks := _ranks(value.get("ranker"), result.from_name, names)):
            answer["ranks"] = ranks
        elif result.type == "rating" and result.to_name in names and isinstance(value.get("rating"), int | float):
            name = (result.from_name or "rating").removesuffix(f"-{result.to_name}")
            ratings.setdefault(name, {})[str(result.to_name)] = value["rating"]
        elif (
            result.type == "number" and result.from_name == "strength" and isinstance(value.get("number"), int | float)
        ):
            answer["strength"] = int(value["number"])
        elif result.type == "textarea" and isinstance(value.get("text"), list | str):
            text = value["text"] if isinstance(value["text"], str) else "\n".join(map(str, value["text"]))
            answer["rationale"] = "\n".join([answer["rationale"], text] if "rationale" in answer else [text])
        else:
            left_out(lost, "results", "results are neither pairwise, ranker, rating nor textarea")
    whole = whole_ratings(ratings, names, lost)
    if "ranks" not in answer:
        return None
    if "strength" in answer:
        answer["strength"] = fitting(answer["strength"], answer["ranks"], lost)
    return {**answer, "ratings": whole or None}


def _rater(annotation: _Annotation, where: str) -> str:
    """Who completed it; without that each annotation has a rater of its own."""
    who = annotation.completed_by
    if isinstance(who, dict):
        who = who.get("email") or who.get("id")
    if who is None:
        return (
            f"annotation-{annotation.id}"
            if annotation.id is not None
            else "annotation-" + sha256_json(where.rpartition(", ")[2])[:12]
        )
    return str(who)


def _ranks(said: Any, control: str | None, names: list[str]) -> list[int] | None:
    """Ranks of a ranker's result: a list, the best first, or our buckets, a rank each. None for other buckets.

    Newer releases put the list under the name of the `control`.
    """
    if isinstance(said, dict) and control is not None and list(said) == [control]:
        said = said[control]
    if isinstance(said, dict):
        buckets = [(name, ids) for name, ids in said.items() if ids]
        if not all(
            name.startswith(BUCKET) and name[len(BUCKET) :].isdigit() and isinstance(ids, list) for name, ids in buckets
        ):
            return None
        of = {str(one): int(name[len(BUCKET) :]) for name, ids in buckets for one in ids}
    elif isinstance(said, list):
        of = {str(one): place for place, one in enumerate(said)}
    else:
        return None
    return [1 + sum(of[other] < of[name] for other in names) for name in names] if set(of) == set(names) else None


def write(records: Sequence[Record], name: str, lost: Lost) -> Files:
    answers = [answer for record in records for answer in record.item.answers]
    pairwise = all(len(record.item.responses) == 2 for record in records) and all(
        answer.ranks[0] != answer.ranks[1] for answer in answers
    )
    dialogues = any(one_text(record.item.prompt, "user") is None for record in records)
    rows = [row for record in records if (row := _task(record, pairwise, dialogues, lost)) is not None]
    kept = [
        "unanswered",
        "ties",
        "probabilities",
        "weights",
        "raters",
        "models",
        "tags",
        "groups",
        "strength",
        "reasons",
        "seconds",
        "times",
    ]
    count_decisions(records, lost)
    count_lost(records, [*kept, *(["ratings"] if pairwise else [])], lost)
    return {"tasks.json": rows, "labeling_config.xml": _config(records, pairwise, dialogues)} if rows else {}


def _task(record: Record, pairwise: bool, dialogues: bool, lost: Lost) -> dict[str, Any] | None:
    item = record.item
    texts = [one_text(response.messages, "assistant") for response in item.responses]
    if None in texts:
        left_out(lost, "conversations", "items have a response of several turns")
        return None
    prompt = {"messages": dump(item.prompt)} if dialogues else {"prompt": item.prompt[0].content}
    data: dict[str, Any] = {"id": item.id, **prompt}
    names = [f"answer{number}" for number in range(1, len(texts) + 1)]
    if pairwise:
        data |= dict(zip(names, texts, strict=True))
    else:
        data["items"] = [{"id": name, "title": name, "body": text} for name, text in zip(names, texts, strict=True)]
    if any(response.model for response in item.responses):
        data["models"] = [response.model for response in item.responses]
    if item.tags:
        data["tags"] = item.tags
    if item.group and not item.group.startswith(OWN_GROUP):
        data["group"] = item.group
    if record.split:
        data["split"] = record.split
    annotations = [_annotation(answer, names, pairwise) for answer in item.answers]
    return {"data": data, **({"annotations": annotations} if annotations else {})}


def _annotation(answer: Answer, names: list[str], pairwise: bool) -> dict[str, Any]:
    whole = answer.rater.isdecimal() and str(int(answer.rater)) == answer.rater
    said: dict[str, Any] = {"completed_by": int(answer.rater) if whole else {"email": answer.rater}}
    if answer.seconds is not None:
        said["lead_time"] = answer.seconds
    if answer.submitted_at is not None:
        said["created_at"] = answer.submitted_at
    return {**said, "was_cancelled": False, "result": list(_results(answer, names, pairwise))}


def _results(answer: Answer, names: list[str], pairwise: bool) -> Iterator[dict[str, Any]]:
    if pairwise:
        value: dict[str, Any] = {"selected": "left" if answer.ranks[0] < answer.ranks[1] else "right"}
        yield {"from_name": "comparison", "to_name": "comparison", "type": "pairwise", "value": value}
        for name, values in (answer.ratings or {}).items():
            for to_name, rating in zip(names, values, strict=True):
                # Each control of a labeling interface has a name of its own.
                value = {"rating": rating}
                yield {"from_name": f"{name}-{to_name}", "to_name": to_name, "type": "rating", "value": value}
    else:
        buckets: dict[str, list[str]] = {}
        for rank, name in sorted(zip(answer.ranks, names, strict=True)):
            buckets.setdefault(f"{BUCKET}{rank}", []).append(name)
        yield {"from_name": "rank", "to_name": "answers", "type": "ranker", "value": {"ranker": buckets}}
    to = "prompt" if not pairwise else names[0]
    if answer.strength is not None:
        yield {"from_name": "strength", "to_name": to, "type": "number", "value": {"number": answer.strength}}
    if answer.rationale:
        yield {"from_name": "rationale", "to_name": to, "type": "textarea", "value": {"text": [answer.rationale]}}


def _config(records: Sequence[Record], pairwise: bool, dialogues: bool) -> str:
    """The labeling interface that shows these tasks."""
    prompt = '<Chat name="prompt" value="$messages"/>' if dialogues else '<Text name="prompt" value="$prompt"/>'
    lines = ["<View>", f"  {prompt}"]
    to = "prompt"
    if pairwise:
        to = "answer1"
        dimensions = dict.fromkeys(
            name for record in records for answer in record.item.answers for name in answer.ratings or {}
        )
        lines.append('  <Pairwise name="comparison" toName="answer1,answer2"/>')
        for side in ("answer1", "answer2"):
            lines.append(f'  <Text name="{side}" value="${side}"/>')
            lines += [f'  <Rating name={quoteattr(f"{name}-{side}")} toName="{side}"/>' for name in dimensions]
    else:
        most = max(len(record.item.responses) for record in records)
        lines += ['  <List name="answers" value="$items"/>', '  <Ranker name="rank" toName="answers">']
        lines += [f'    <Bucket name="{BUCKET}{rank}" title="{rank}"/>' for rank in range(1, most + 1)]
        lines.append("  </Ranker>")
    lines.append(f'  <Number name="strength" toName="{to}"/>')
    lines.append(f'  <TextArea name="rationale" toName="{to}" placeholder="Why?"/>')
    return "\n".join([*lines, "</View>", ""])
