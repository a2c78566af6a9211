"""UltraFeedback binarized: the best completion against another, with their scores.

Shape: the data set HuggingFaceH4/ultrafeedback_binarized on the hub (README of 2024); argilla's cleaned versions
(`chosen-rating`, `chosen-model`) are read too. `chosen` and `rejected` are whole conversations.

    {"prompt": …, "prompt_id": …, "chosen": [{"role": "user", …}, {"role": "assistant", …}], "rejected": […],
     "messages": […], "score_chosen": 8.5, "score_rejected": 6.0}
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from preferences.contract import Item, Pair
from preferences.formats.records import Record, chosen_over_rejected, count_lost, pair_rows, places
from preferences.formats.rows import Files, Lost, Row, read_rows
from preferences.formats.turns import Turn, dump, parts_of
from preferences.formats.ultrafeedback import OVERALL, RATER, mean_ratings


class _Row(Row):
    prompt: str | None = None
    prompt_id: str | None = None
    chosen: list[Turn]
    rejected: list[Turn]
    messages: list[Turn] | None = None  # `chosen` again
    score_chosen: float | None = None
    score_rejected: float | None = None
    chosen_rating: float | None = Field(default=None, alias="chosen-rating")
    rejected_rating: float | None = Field(default=None, alias="rejected-rating")
    chosen_model: str | None = Field(default=None, alias="chosen-model")
    rejected_model: str | None = Field(default=None, alias="rejected-model")
    source: str | None = None


def read(path: str | Path, lost: Lost) -> Iterator[Item]:
    for where, row in read_rows(path, _Row, lost):
        better = row.score_chosen if row.score_chosen is not None else row.chosen_rating
        worse = row.score_rejected if row.score_rejected is not None else row.rejected_rating
        item = chosen_over_rejected(
            where,
            lost,
            RATER,
            parts_of(None, row.chosen, row.rejected, where),
            ratings={OVERALL: [better, worse]} if better is not None and worse is not None else None,
            models=(row.chosen_model, row.rejected_model),
            tags=[row.source] if row.source else None,
        )
        if item:
            yield item


def write(records: Sequence[Record], name: str, lost: Lost) -> Files:
    def row(record: Record, pair: Pair) -> dict[str, Any]:
        prompt = dump(pair.prompt)
        chosen, rejected = prompt + dump(pair.chosen), prompt + dump(pair.rejected)
        said = prompt[-1]["content"]
        scores: dict[str, float] = {}
        found, overall = places(record, pair), mean_ratings(record).get(OVERALL)
        if found and overall:
            scores = {"score_chosen": overall[found[0]], "score_rejected": overall[found[1]]}
        return {
            "prompt": said,
            "prompt_id": hashlib.sha256(said.encode()).hexdigest(),
            "chosen": chosen,
            "rejected": rejected,
            "messages": chosen,
            **scores,
        }

    count_lost(records, ("ratings",), lost)
    others = sum(set(answer.ratings or {}) - {OVERALL} != set() for record in records for answer in record.item.answers)
    lost["ratings", f"answers have ratings other than {OVERALL}, which have no place in this format"] += others
    return pair_rows(records, row)
