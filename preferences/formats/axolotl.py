"""axolotl's DPO and KTO data: chat_template.default, the chatml shapes of texts, and user_defined for KTO.

Shape: https://github.com/axolotl-ai-cloud/axolotl, docs/rlhf.qmd and src/axolotl/prompt_strategies/{dpo,kto} (0.18,
2026-07-24). The chatml shapes (argilla, icr, intel, prompt_pairs, ultra, argilla_chat; llama3's are alike) are told by
their keys, and so is zephyr.nectar, which ranks several answers.

    {"messages": [{"role": "user", …}], "chosen": {"role": "assistant", …}, "rejected": {"role": "assistant", …}}
    {"system": …, "prompt": …, "chosen": …, "rejected": …}    also `input`, `question`, `instruction`, `chosen_response`
    {"chosen": [{"role": "user", …}, {"role": "assistant", …}], "rejected": […]}
    {"prompt": …, "answers": [{"answer": …, "rank": 1}, …]}
    {"system": …, "prompt": …, "completion": …, "label": true}
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field

from preferences.contract import Item, Pair
from preferences.errors import BadInput
from preferences.formats.records import (
    Record,
    chosen_over_rejected,
    count_lost,
    from_labels,
    label_rows,
    left_out,
    make_item,
    pair_rows,
    ranks_of,
)
from preferences.formats.rows import Files, Lost, Row, read_rows
from preferences.formats.turns import Parts, Said, Turn, Turns, as_turns, dump, one_text, parts_of, system_and_text
from preferences.shapes import Message

RATER = "axolotl"


class _Answer(Row):
    answer: str
    rank: float


class _Row(Row):
    system: str | None = None
    messages: str | list[Turn] | None = None
    prompt: str | None = Field(
        default=None, validation_alias=AliasChoices("prompt", "input", "question", "instruction")
    )
    chosen: str | list[Turn] | Turn | None = Field(
        default=None, validation_alias=AliasChoices("chosen", "chosen_response")
    )
    rejected: str | list[Turn] | Turn | None = Field(
        default=None, validation_alias=AliasChoices("rejected", "rejected_response")
    )
    completion: str | list[Turn] | None = None
    label: bool | None = None
    answers: list[_Answer] | None = None


def read(path: str | Path, lost: Lost) -> Iterator[Item]:
    labelled: list[tuple[str, Turns, Turns, bool]] = []
    for where, row in read_rows(path, _Row, lost):
        system = [{"role": "system", "content": row.system}] if row.system else []
        if row.completion is not None and row.label is not None:
            completion = as_turns(row.completion, "assistant", f"{where}: completion")
            prompt = as_turns(row.prompt, "user", where) if row.prompt is not None else completion[:-1]
            labelled.append((where, system + prompt, completion[-1:], row.label))
        elif row.answers is not None and row.prompt is not None:
            answer = {"rater": RATER, "ranks": ranks_of([-one.rank for one in row.answers])}
            responses = [{"messages": [{"role": "assistant", "content": one.answer}]} for one in row.answers]
            turns = system + as_turns(row.prompt, "user", where)
            if item := make_item(where, lost, prompt=turns, responses=responses, answers=[answer]):
                yield item
        elif row.chosen is not None and row.rejected is not None:
            parts = _parts(row, row.chosen, row.rejected, where)
            if item := chosen_over_rejected(where, lost, RATER, parts and (system + parts[0], parts[1], parts[2])):
                yield item
        else:
            raise BadInput(f"{where}: neither `chosen` and `rejected` nor `completion` and `label` are there")
    yield from from_labels(labelled, RATER, lost)


def _parts(row: _Row, chosen: Said, rejected: Said, where: str) -> Parts | None:
    if row.messages is not None:  # of a list the last turn is the response
        last = [one[-1:] if isinstance(one, list) else one for one in (chosen, rejected)]
        return parts_of(row.messages, last[0], last[1], where)
    whole = isinstance(chosen, list) or isinstance(rejected, list)  # conversations that begin with the prompt
    return parts_of(None if whole else row.prompt, chosen, rejected, where)


def write(records: Sequence[Record], name: str, lost: Lost) -> Files:
    def pair_row(record: Record, pair: Pair) -> dict[str, Any] | None:
        chosen, rejected = one_text(pair.chosen, "assistant"), one_text(pair.rejected, "assistant")
        if chosen is None or rejected is None:
            left_out(lost, "conversations", "pairs have a response of several turns")
            return None
        if name == "axolotl":
            turns = {
                key: {"role": "assistant", "content": text}
                for key, text in (("chosen", chosen), ("rejected", rejected))
            }
            return {"messages": dump(pair.prompt), **turns}
        start = _texts(pair.prompt, lost)
        return start and {**start, "chosen": chosen, "rejected": rejected}

    def label_row(record: Record, response: Sequence[Message], label: bool) -> dict[str, Any] | None:
        text, start = one_text(response, "assistant"), _texts(record.item.prompt, lost)
        if text is None:
            left_out(lost, "conversations", "responses have several turns")
        return {**start, "completion": text, "label": label} if start and text is not None else None

    count_lost(records, (), lost)
    return label_rows(records, label_row, lost) if name == "axolotl-kto" else pair_rows(records, pair_row)


def _texts(prompt: Sequence[Message], lost: Lost) -> dict[str, str] | None:
    said = system_and_text(prompt)
    if said is None:
        left_out(lost, "conversations", "prompts are more than one question, which texts can't hold")
        return None
    return {"system": said[0] or "", "prompt": said[1]}
