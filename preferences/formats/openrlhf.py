"""OpenRLHF's preference data: whole conversations, or a prompt and two replies; `margin` is the strength.

Shape: https://github.com/OpenRLHF/OpenRLHF, openrlhf/datasets/reward_dataset.py (0.11.0, 2026-08-13). Turns go with
`--data.apply_chat_template`, texts with `--data.prompt_key prompt`, and the margin with `--model.margin_loss_enable`.

    {"chosen": [{"role": "user", …}, {"role": "assistant", …}], "rejected": […], "margin": 2.0}
    {"prompt": …, "chosen": …, "rejected": …, "margin": 2.0}
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from preferences.contract import Item, Pair
from preferences.formats.records import Record, chosen_over_rejected, count_lost, left_out, pair_rows
from preferences.formats.rows import Files, Lost, Row, read_rows
from preferences.formats.turns import Turn, dump, one_text, parts_of


class _Row(Row):
    prompt: str | list[Turn] | None = None
    chosen: str | list[Turn]
    rejected: str | list[Turn]
    margin: float | None = None


def read(path: str | Path, lost: Lost) -> Iterator[Item]:
    for where, row in read_rows(path, _Row, lost):
        strength = int(row.margin) if row.margin in (1, 2, 3) else None
        if row.margin and strength is None:
            lost["`margin`", "margins are not 1, 2 or 3, and are left out"] += 1
        parts = parts_of(row.prompt, row.chosen, row.rejected, where)
        if item := chosen_over_rejected(where, lost, "openrlhf", parts, strength=strength):
            yield item


def write(records: Sequence[Record], name: str, lost: Lost) -> Files:
    def row(record: Record, pair: Pair) -> dict[str, Any] | None:
        texts = one_text(pair.chosen, "assistant"), one_text(pair.rejected, "assistant")
        question = one_text(pair.prompt, "user")
        if None in texts or (name.endswith("-text") and question is None):
            left_out(lost, "conversations", "pairs are more than this shape holds: a prompt and one reply")
            return None
        margin = {"margin": pair.strength} if pair.strength is not None else {}
        if name.endswith("-text"):
            return {"prompt": question, "chosen": texts[0], "rejected": texts[1], **margin}
        start = dump(pair.prompt)
        return {"chosen": start + dump(pair.chosen), "rejected": start + dump(pair.rejected), **margin}

    count_lost(records, ("strength",), lost)
    return pair_rows(records, row)
