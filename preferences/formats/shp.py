"""SHP: a post and two comments on it, of which readers together like one better.

Shape: the data sets stanfordnlp/SHP and SHP-2 on the hub (README of 2023). `labels` is 1 where A is better, else 0.

    {"post_id": "qt3nxl", "domain": "askculinary_train", "history": …, "c_root_id_A": …, "c_root_id_B": …,
     "score_A": 340, "score_B": 166, "human_ref_A": …, "human_ref_B": …, "labels": 1, "score_ratio": 2.05, …}
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from preferences.contract import Item, Pair
from preferences.errors import BadInput
from preferences.formats.records import Record, count_lost, left_out, make_item, pair_rows, places
from preferences.formats.rows import Files, Lost, Row, read_rows
from preferences.formats.turns import one_text
from preferences.formats.ultrafeedback import mean_ratings

RATER = "readers"


class _Row(Row):
    post_id: str
    domain: str | None = None
    history: str
    human_ref_A: str
    human_ref_B: str
    labels: int
    c_root_id_A: str | None = None
    c_root_id_B: str | None = None
    score_A: float | None = None
    score_B: float | None = None
    score_ratio: float | None = None  # of the two scores


def read(path: str | Path, lost: Lost) -> Iterator[Item]:
    for where, row in read_rows(path, _Row, lost):
        if row.labels not in (0, 1):
            raise BadInput(f"{where}: labels: {row.labels} is neither 1 (A is better) nor 0")
        answer: dict[str, Any] = {"rater": RATER, "ranks": [1, 2] if row.labels else [2, 1]}
        if row.score_A is not None and row.score_B is not None:
            answer["ratings"] = {"score": [row.score_A, row.score_B]}
        texts = (row.human_ref_A, row.c_root_id_A), (row.human_ref_B, row.c_root_id_B)
        item = make_item(
            where,
            lost,
            prompt=[{"role": "user", "content": row.history}],
            responses=[{"messages": [{"role": "assistant", "content": text}], "id": key} for text, key in texts],
            group=row.post_id,
            tags=[row.domain] if row.domain else None,
            answers=[answer],
        )
        if item:
            yield item


def write(records: Sequence[Record], name: str, lost: Lost) -> Files:
    def row(record: Record, pair: Pair) -> dict[str, Any] | None:
        item = record.item
        history = one_text(pair.prompt, "user")
        better, worse = one_text(pair.chosen, "assistant"), one_text(pair.rejected, "assistant")
        if history is None or better is None or worse is None:
            left_out(lost, "conversations", "pairs are more than one question and one reply")
            return None
        found = places(record, pair)
        if found is None:
            left_out(lost, "edits", "pairs are of a response that a rater rewrote")
            return None
        a, b = sorted(found)
        scores = mean_ratings(record).get("score")
        both = {"A": a, "B": b}
        said: dict[str, Any] = {"post_id": item.group or item.id, "domain": (*item.tags, "")[0], "history": history}
        said |= {f"c_root_id_{side}": item.responses[place].id or f"{item.id}/{place}" for side, place in both.items()}
        said |= {f"human_ref_{side}": item.responses[place].messages[0].content for side, place in both.items()}
        said["labels"] = int(found == (a, b))
        if scores:
            said |= {f"score_{side}": scores[place] for side, place in both.items()}
            low, high = sorted((scores[a], scores[b]))
            said |= {"score_ratio": high / low} if low > 0 else {}
        return said

    count_lost(records, ("tags", "groups", "ratings"), lost)
    others = sum(set(answer.ratings or {}) - {"score"} != set() for record in records for answer in record.item.answers)
    lost["ratings", "answers have ratings other than `score`, which have no place in this format"] += others
    lost["tags", "tags beyond the first are left out"] += sum(max(len(one.item.tags) - 1, 0) for one in records)
    return pair_rows(records, row)
