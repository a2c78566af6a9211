"""LLaMA-Factory's preference data: sharegpt or alpaca, and for KTO, with its entry in dataset_info.json.

Shape: https://github.com/hiyouga/LLaMA-Factory, data/README.md and data/converter.py (0.9.6, 2026-08-18). If a
dataset_info.json beside the file names it, its `columns` and `tags` are followed; else the usual names are taken.

    {"conversations": [{"from": "human", "value": …}], "chosen": {"from": "gpt", …}, "rejected": {"from": "gpt", …}}
    {"instruction": …, "input": …, "chosen": …, "rejected": …, "system": …, "history": [[…, …]]}
    {"conversations": [{"from": "human", …}, {"from": "gpt", …}], "kto_tag": true}
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from preferences.contract import Item, Pair
from preferences.errors import BadInput
from preferences.files import read_json
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
from preferences.formats.turns import Turn, Turns, alternates, as_turns, one_text
from preferences.shapes import Message

RATER = "llama-factory"
INFO = "dataset_info.json"
COLUMNS = {"prompt": "instruction", "query": "input", "response": "output", "messages": "conversations"}
TAGS = {  # the contract's word: LLaMA-Factory's key in `tags`, and what it is there by default
    "role": ("role_tag", "from"),
    "content": ("content_tag", "value"),
    "user": ("user_tag", "human"),
    "assistant": ("assistant_tag", "gpt"),
    "tool": ("observation_tag", "observation"),
    "system": ("system_tag", "system"),
}
NAMES = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}


class _Row(Row):
    instruction: str | None = None
    input: str | None = None
    output: str | None = None
    system: str | None = None
    history: list[list[str]] | None = None
    conversations: list[Turn] | None = None
    chosen: str | Turn | None = None
    rejected: str | Turn | None = None
    kto_tag: bool | None = None


def read(path: str | Path, lost: Lost) -> Iterator[Item]:
    info = _info(Path(path))
    columns = {**COLUMNS, **info.get("columns", {})}
    renamed = {given: COLUMNS.get(key, key) for key, given in columns.items()}
    tags = {info.get("tags", {}).get(key, usual): word for word, (key, usual) in TAGS.items()}
    labelled: list[tuple[str, Turns, Turns, bool]] = []
    for where, row in read_rows(path, _Row, lost, lambda value: _usual(value, renamed, tags)):
        prompt = _prompt(row, where)
        if row.kto_tag is not None:
            *before, last = prompt if row.output is None else [*prompt, {"role": "assistant", "content": row.output}]
            labelled.append((where, before, [last], row.kto_tag))
        elif row.chosen is not None and row.rejected is not None:
            one, two = (as_turns(said, "assistant", where) for said in (row.chosen, row.rejected))
            if item := chosen_over_rejected(where, lost, RATER, (prompt, one, two)):
                yield item
        else:
            raise BadInput(f"{where}: neither `chosen` and `rejected` nor `kto_tag` are there")
    yield from from_labels(labelled, RATER, lost)


def _info(path: Path) -> dict[str, Any]:
    """What a dataset_info.json beside the file says of it; nothing where there is none, or it doesn't name the file."""
    if not (path.parent / INFO).is_file():
        return {}
    entries = [entry for entry in read_json(path.parent / INFO).values() if isinstance(entry, dict)]
    entry = next((entry for entry in entries if entry.get("file_name") == path.name), {})
    for key in ("columns", "tags"):
        said = entry.get(key, {})
        if not isinstance(said, dict) or not all(isinstance(name, str) for name in said.values()):
            raise BadInput(f"{path.parent / INFO}: `{key}` of {path.name} is not an object of names")
    return entry


def _usual(value: dict[str, Any], renamed: dict[str, str], tags: dict[str, str]) -> dict[str, Any]:
    """A row with the usual names in place of those that dataset_info.json gives."""

    def turn(said: Any) -> Any:
        if not isinstance(said, dict):
            return said
        named = {tags.get(key, key) if tags.get(key) in ("role", "content") else key: one for key, one in said.items()}
        role = named.get("role")
        return {**named, "role": tags.get(role, role)} if isinstance(role, str) else named

    row = {renamed.get(key, key): said for key, said in value.items()}
    if "messages" in row and "conversations" not in row:
        row["conversations"] = row.pop("messages")
    if isinstance(row.get("conversations"), list):
        row["conversations"] = [turn(one) for one in row["conversations"]]
    return row | {key: turn(row[key]) for key in ("chosen", "rejected") if key in row}


def _prompt(row: _Row, where: str) -> Turns:
    turns: Turns = []
    if row.conversations is not None:
        turns = as_turns(row.conversations, "user", f"{where}: conversations")
    elif row.instruction is not None:
        for number, pair in enumerate(row.history or []):
            if len(pair) != 2:
                raise BadInput(f"{where}: history[{number}]: {len(pair)} texts, not a question and its reply")
            turns += [{"role": role, "content": text} for role, text in zip(("user", "assistant"), pair, strict=True)]
        text = "\n".join(part for part in (row.instruction, row.input) if part)
        turns.append({"role": "user", "content": text})
    else:
        raise BadInput(f"{where}: neither `conversations` nor `instruction` is there")
    if row.system and turns[0]["role"] != "system":
        turns.insert(0, {"role": "system", "content": row.system})
    return turns


def write(records: Sequence[Record], name: str, lost: Lost) -> Files:
    def pair_row(record: Record, pair: Pair) -> dict[str, Any] | None:
        chosen, rejected = one_text(pair.chosen, "assistant"), one_text(pair.rejected, "assistant")
        if chosen is None or rejected is None or (conversation := _conversation(pair.prompt)) is None:
            left_out(lost, "conversations", "pairs do not alternate between user and assistant")
            return None
        if name.endswith("-alpaca"):
            if any(turn.role == "tool" for turn in pair.prompt):
                left_out(lost, "tools", "pairs have a tool's turn")
                return None
            return {**_instruction(pair.prompt), "chosen": chosen, "rejected": rejected}
        said = {key: {"from": "gpt", "value": text} for key, text in (("chosen", chosen), ("rejected", rejected))}
        return {"conversations": conversation, **said}

    def label_row(record: Record, response: Sequence[Message], label: bool) -> dict[str, Any] | None:
        text = one_text(response, "assistant")
        if text is None or (conversation := _conversation(record.item.prompt)) is None:
            left_out(lost, "conversations", "responses do not alternate between user and assistant")
            return None
        return {"conversations": [*conversation, {"from": "gpt", "value": text}], "kto_tag": label}

    count_lost(records, (), lost)
    kto = name.endswith("-kto")
    files = label_rows(records, label_row, lost) if kto else pair_rows(records, pair_row)
    if not files:
        return files
    if name.endswith("-alpaca"):
        columns = {key: key for key in ("system", "history", "chosen", "rejected")}
        entry: dict[str, Any] = {"ranking": True, "columns": {"prompt": "instruction", "query": "input", **columns}}
    else:
        columns = {key: key for key in (("kto_tag",) if kto else ("chosen", "rejected"))}
        entry = {"formatting": "sharegpt", "columns": {"messages": "conversations", **columns}}
        entry |= {} if kto else {"ranking": True}
    return {**files, INFO: {Path(file).stem: {"file_name": file, **entry} for file in files}}


def _conversation(prompt: Sequence[Message]) -> list[dict[str, str]] | None:
    if not alternates(prompt, ("user", "tool")):
        return None
    return [{"from": NAMES[turn.role], "value": turn.content} for turn in prompt]


def _instruction(prompt: Sequence[Message]) -> dict[str, Any]:
    """The prompt as alpaca has it: the last question, the system prompt, and the questions and replies before."""
    system = prompt[0].content if prompt[0].role == "system" else ""
    *before, last = prompt[1:] if prompt[0].role == "system" else prompt
    history = [[question.content, reply.content] for question, reply in zip(before[::2], before[1::2], strict=True)]
    return {"instruction": last.content, "input": "", "system": system, "history": history}
