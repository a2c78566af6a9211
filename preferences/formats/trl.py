"""TRL's preference data: explicit or implicit prompt, or unpaired with a label; as turns or as texts.

Shape: TRL's documentation, "Dataset formats and types", 1.16 (2026). Where the prompt is implicit in two texts it ends
where they part, as in TRL's `extract_prompt`, but never inside of a word.

    {"prompt": [{"role": "user", …}], "chosen": [{"role": "assistant", …}], "rejected": [{"role": "assistant", …}]}
    {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}
    {"chosen": [{"role": "user", …}, {"role": "assistant", …}], "rejected": [{"role": "user", …}, …]}
    {"prompt": …, "completion": …, "label": true}
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from preferences.contract import Item, Pair
from preferences.errors import BadInput
from preferences.formats.records import (
    Record,
    chosen_over_rejected,
    count_lost,
    from_labels,
    label_rows,
    left_out,
    pair_rows,
)
from preferences.formats.rows import Files, Lost, Row, read_rows
from preferences.formats.turns import Turn, Turns, as_turns, dump, one_text, parts_of
from preferences.shapes import Message

RATER = "trl"


class _Row(Row):
    prompt: str | list[Turn] | None = None
    chosen: str | list[Turn] | None = None
    rejected: str | list[Turn] | None = None
    completion: str | list[Turn] | None = None
    label: bool | None = None


def read(path: str | Path, lost: Lost) -> Iterator[Item]:
    labelled: list[tuple[str, Turns, Turns, bool]] = []
    for where, row in read_rows(path, _Row, lost):
        if row.prompt is not None and row.completion is not None and row.label is not None:
            prompt = as_turns(row.prompt, "user", f"{where}: prompt")
            labelled.append((where, prompt, as_turns(row.completion, "assistant", f"{where}: completion"), row.label))
        elif row.chosen is not None and row.rejected is not None:
            parts = parts_of(row.prompt, row.chosen, row.rejected, where)
            if item := chosen_over_rejected(where, lost, RATER, parts):
                yield item
        else:
            raise BadInput(f"{where}: neither `chosen` and `rejected` nor `prompt`, `completion` and `label` are there")
    yield from from_labels(labelled, RATER, lost)


def write(records: Sequence[Record], name: str, lost: Lost) -> Files:
    def sides(prompt: Sequence[Message], *responses: Sequence[Message]) -> list[Any] | None:
        """The prompt and the responses as this shape has them, the prompt before each response where it is implicit."""
        said: list[Any] = [dump(prompt), *map(dump, responses)]
        if name.endswith("-text"):
            said = [one_text(prompt, "user"), *(one_text(response, "assistant") for response in responses)]
        if None in said:
            left_out(lost, "conversations", "rows are more than one question and one reply, which texts can't hold")
            return None
        return [said[0], *(said[0] + one for one in said[1:])] if "implicit" in name else said

    def pair_row(record: Record, pair: Pair) -> dict[str, Any] | None:
        if (said := sides(pair.prompt, pair.chosen, pair.rejected)) is None:
            return None
        row = {"prompt": said[0], "chosen": said[1], "rejected": said[2]}
        return {key: row[key] for key in row if key != "prompt"} if "implicit" in name else row

    def label_row(record: Record, response: Sequence[Message], label: bool) -> dict[str, Any] | None:
        said = sides(record.item.prompt, response)
        return None if said is None else {"prompt": said[0], "completion": said[1], "label": label}

    count_lost(records, (), lost)
    return label_rows(records, label_row, lost) if "unpaired" in name else pair_rows(records, pair_row)
