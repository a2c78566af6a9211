"""FastChat's votes: two conversations with the same questions, two models, and which of them a judge prefers.

Shape: https://github.com/lm-sys/FastChat, fastchat/serve/monitor/clean_battle_data.py (2025-04-12), as in the data sets
lmsys/chatbot_arena_conversations and lmsys/mt_bench_human_judgments. `turn` says how many questions were judged.

    {"question_id": …, "model_a": …, "model_b": …, "judge": …,
     "winner": "model_a" | "model_b" | "tie" | "tie (bothbad)", "conversation_a": [{"role": "user", …}, …],
     "conversation_b": […], "turn": 1, "anony": true, "language": "English", "tstamp": 1687850000.1234}

Votes about the same two conversations are answers to one item. A ranking of more responses is written as a vote a pair.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from preferences.contract import Answer, Item
from preferences.files import sha256_json
from preferences.formats.records import Record, count_decisions, count_lost, left_out, make_item
from preferences.formats.rows import Files, Lost, Row, read_rows
from preferences.formats.turns import Turn, Turns, as_turns, common_prompt, dump

ALL_BAD = "all-bad"  # the contract's flag
LATEST = 253402300799.0  # the last second of the year 9999


class _Row(Row):
    question_id: str | int | None = None
    model_a: str
    model_b: str
    winner: Literal["model_a", "model_b", "tie", "tie (bothbad)"]
    judge: str
    conversation_a: list[Turn]
    conversation_b: list[Turn]
    turn: int | None = Field(default=None, ge=1)
    language: str | None = None
    tstamp: float | None = Field(default=None, ge=0, le=LATEST)


def read(path: str | Path, lost: Lost) -> Iterator[Item]:
    items: dict[str, dict[str, Any]] = {}
    for where, row in read_rows(path, _Row, lost):
        a, b = (
            _beginning(as_turns(turns, "user", f"{where}: {key}"), row.turn)
            for key, turns in (("conversation_a", row.conversation_a), ("conversation_b", row.conversation_b))
        )
        parts = common_prompt(a, b)
        if parts is None:
            left_out(lost, "prompts", "rows have two conversations without a common beginning")
            continue
        swapped = sha256_json([b, row.model_b, a, row.model_a])  # the same vote with the sides changed
        key = sha256_json([a, row.model_a, b, row.model_b])
        flip = key not in items and swapped in items
        ranks = [1 + (row.winner == "model_b"), 1 + (row.winner == "model_a")]
        answer: dict[str, Any] = {"rater": row.judge, "ranks": ranks[::-1] if flip else ranks}
        answer["shown"] = [1, 0] if flip else [0, 1]
        if row.winner == "tie (bothbad)":
            answer["flags"] = [ALL_BAD]
        if row.tstamp is not None:
            answer["submitted_at"] = datetime.fromtimestamp(row.tstamp, UTC).isoformat()
        if flip:
            key = swapped
        if key not in items:
            sides = zip(parts[1:], (row.model_a, row.model_b), strict=True)
            items[key] = {
                "where": where,
                "id": row.question_id,
                "prompt": parts[0],
                "responses": [{"messages": messages, "model": model} for messages, model in sides],
                "tags": [row.language] if row.language else None,
                "answers": [],
            }
        if any(other["rater"] == row.judge for other in items[key]["answers"]):
            left_out(lost, "repetitions", "votes are a judge's second one about the same conversations")
            continue
        items[key]["answers"].append(answer)
    ids = Counter(value["id"] for value in items.values())
    for key, value in items.items():
        if value["id"] is None or ids[value["id"]] > 1:  # MT-bench's ids are those of questions
            value["id"] = f"item-{key[:20]}"
        if item := make_item(value.pop("where"), lost, **value):
            yield item


def _beginning(turns: Turns, questions: int | None) -> Turns:
    """The conversation up to the reply to the last question that was judged; whole if nobody says which that was."""
    asked = [place for place, turn in enumerate(turns) if turn["role"] == "user"]
    return turns[: asked[questions]] if questions is not None and questions < len(asked) else turns


def write(records: Sequence[Record], name: str, lost: Lost) -> Files:
    rows = [row for record in records for answer in record.item.answers for row in _votes(record.item, answer, lost)]
    count_decisions(records, lost)
    if len(splits := {record.split for record in records}) > 1:
        lost["splits", "splits stand in one file of votes"] += len(splits)
    count_lost(records, ("ties", "probabilities", "weights", "raters", "models", "flags", "times", "order"), lost)
    return {"votes.jsonl": rows}


def _votes(item: Item, answer: Answer, lost: Lost) -> Iterator[dict[str, Any]]:
    flags = answer.flags or []
    lost["flags", f"flags other than {ALL_BAD} are left out"] += len([flag for flag in flags if flag != ALL_BAD])
    for i, j in combinations(range(len(item.responses)), 2):
        a, b = (j, i) if answer.shown and answer.shown.index(j) < answer.shown.index(i) else (i, j)
        models = item.responses[a].model, item.responses[b].model
        if None in models:
            left_out(lost, "models", "votes do not say the models")
            continue
        winner = "tie (bothbad)" if ALL_BAD in flags else "tie"
        if answer.ranks[a] != answer.ranks[b]:
            winner = "model_a" if answer.ranks[a] < answer.ranks[b] else "model_b"
        start = dump(item.prompt)
        conversations = [start + dump(item.responses[place].messages) for place in (a, b)]
        row: dict[str, Any] = {
            "question_id": item.id,
            "model_a": models[0],
            "model_b": models[1],
            "winner": winner,
            "judge": answer.rater,
            "conversation_a": conversations[0],
            "conversation_b": conversations[1],
            "turn": max(sum(turn["role"] == "user" for turn in turns) for turns in conversations),
            "anony": True,
        }
        if answer.submitted_at is not None:
            row["tstamp"] = datetime.fromisoformat(answer.submitted_at).timestamp()
        yield row
