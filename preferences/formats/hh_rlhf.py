r"""HH-RLHF: a whole dialogue a string, turns marked by "\n\nHuman: " and "\n\nAssistant: ".

Shape: https://github.com/anthropics/hh-rlhf, README and harmless-base/test.jsonl.gz (commit 354e5c3). The two dialogues
of a row share all but the last turn, with exceptions: what differs earlier belongs to the responses then.

    {"chosen": "\n\nHuman: …\n\nAssistant: …", "rejected": "\n\nHuman: …\n\nAssistant: …"}
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from preferences.contract import Item, Pair
from preferences.errors import BadInput
from preferences.formats.records import Record, chosen_over_rejected, count_lost, left_out, pair_rows
from preferences.formats.rows import Files, Lost, Row, read_rows
from preferences.formats.turns import Turns, common_prompt
from preferences.shapes import Message

_MARK = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_NAMES = {"user": "Human", "assistant": "Assistant"}


class _Row(Row):
    chosen: str
    rejected: str


def read(path: str | Path, lost: Lost) -> Iterator[Item]:
    for where, row in read_rows(path, _Row, lost):
        chosen, rejected = _turns(row.chosen, f"{where}: chosen"), _turns(row.rejected, f"{where}: rejected")
        if item := chosen_over_rejected(where, lost, "hh-rlhf", common_prompt(chosen, rejected)):
            yield item


def _turns(dialogue: str, where: str) -> Turns:
    before, *parts = _MARK.split(dialogue)
    if before.strip() or not parts:
        raise BadInput(f"{where}: does not begin with \\n\\nHuman:")
    return [
        {"role": _ROLES[name], "content": text.removeprefix(" ")}
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    ]


def write(records: Sequence[Record], name: str, lost: Lost) -> Files:
    def row(record: Record, pair: Pair) -> dict[str, Any] | None:
        chosen, rejected = _dialogue(pair.prompt + pair.chosen), _dialogue(pair.prompt + pair.rejected)
        if chosen is None or rejected is None:
            left_out(lost, "turns", "pairs have a system prompt, a tool's turn, or a mark of a turn inside of one")
            return None
        return {"chosen": chosen, "rejected": rejected}

    count_lost(records, (), lost)
    return pair_rows(records, row)


def _dialogue(turns: Sequence[Message]) -> str | None:
    if any(turn.role not in _NAMES or _MARK.search(turn.content) for turn in turns):
        return None
    return "".join(f"\n\n{_NAMES[turn.role]}: {turn.content}" for turn in turns)
