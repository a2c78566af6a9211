"""Texts and turns: what a response adds to a prompt, and which conversations a format of plain texts can hold."""

import re
from collections.abc import Sequence

from pydantic import AliasChoices, Field

from preferences.errors import BadInput
from preferences.formats.rows import Row
from preferences.shapes import Message

Turns = list[dict[str, str]]  # {"role", "content"}
Parts = tuple[Turns, Turns, Turns]  # a prompt and two responses to it
ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
}


class Turn(Row):
    """A turn as tools write it, OpenAI's way or sharegpt's; what else they say about it has no place."""

    role: str = Field(validation_alias=AliasChoices("role", "from"))
    content: str = Field(validation_alias=AliasChoices("content", "value"))


Said = str | list[Turn] | Turn  # a text, or turns


def as_turns(said: Said, role: str, where: str) -> Turns:
    """A text as one turn of this role; a turn, or a list of them, as it is. Raises BadInput for an unknown role."""
    if isinstance(said, str):
        return [{"role": role, "content": said}]
    turns = [said] if isinstance(said, Turn) else said
    if not turns:
        raise BadInput(f"{where}: has no turns; give one, whose content may be empty")
    for number, turn in enumerate(turns):
        if turn.role not in ROLES:
            raise BadInput(f"{where}[{number}]: role {turn.role!r} is none of {', '.join(ROLES)}")
    return [{"role": ROLES[turn.role], "content": turn.content} for turn in turns]


def parts_of(prompt: Said | None, chosen: Said, rejected: Said, where: str) -> Parts | None:
    """The prompt and the two responses of a pair whose prompt is explicit, or None and begins both.

    None where the two have no common beginning. Raises BadInput where one is a text and the other turns.
    """
    if prompt is not None:
        responses = [as_turns(one, "assistant", f"{where}: {key}") for key, one in _both(chosen, rejected)]
        return as_turns(prompt, "user", f"{where}: prompt"), responses[0], responses[1]
    if isinstance(chosen, str) and isinstance(rejected, str):
        return _where_texts_part(chosen, rejected)
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise BadInput(f"{where}: one of `chosen` and `rejected` is a text and one is turns; write both one way")
    one, two = (as_turns(said, "user", f"{where}: {key}") for key, said in _both(chosen, rejected))
    return common_prompt(one, two)


def _both(chosen: Said, rejected: Said) -> tuple[tuple[str, Said], tuple[str, Said]]:
    return ("chosen", chosen), ("rejected", rejected)


def common_prompt(one: Turns, two: Turns) -> Parts | None:
    """(prompt, rest, rest) of two conversations: their longest common beginning that ends before an assistant's turn.

    Both rests have a turn or more, and several where the conversations part before their last turn. None where there
    is no such beginning.
    """
    length = 0
    for mine, other in zip(one, two, strict=False):
        if mine != other:
            break
        length += 1
    length = min(length, len(one) - 1, len(two) - 1)
    while length > 0 and one[length - 1]["role"] == "assistant":
        length -= 1
    return (one[:length], one[length:], two[length:]) if length > 0 else None


def _where_texts_part(one: str, two: str) -> Parts | None:
    """The same for two texts: they part at the last white space before they differ, which begins the responses."""
    end = next((place for place, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
    while end > 0 and not (one[end : end + 1].isspace() or two[end : end + 1].isspace()):
        end -= 1
    if end == 0:
        return None
    return (
        [{"role": "user", "content": one[:end]}],
        [{"role": "assistant", "content": one[end:]}],
        [{"role": "assistant", "content": two[end:]}],
    )


def dump(messages: Sequence[Message]) -> Turns:
    """The contract's messages as plain dictionaries."""
    return [{"role": message.role, "content": message.content} for message in messages]


def one_text(messages: Sequence[Message], role: str) -> str | None:
    """The text of a single turn of this role; None for anything else."""
    return messages[0].content if len(messages) == 1 and messages[0].role == role else None


def system_and_text(prompt: Sequence[Message]) -> tuple[str | None, str] | None:
    """(system prompt or None, text) of a prompt that is one user turn, after a system prompt or not; else None."""
    *before, last = prompt
    if last.role != "user" or len(before) > 1 or any(turn.role != "system" for turn in before):
        return None
    return (before[0].content if before else None), last.content


PROMPTS = ("prompt", "instruction", "question", "input", "context", "query", "chat", "conversation", "messages")


def series(name: str) -> str:
    """What fields that are numbered have in common: "response" of "response-2", "answer_" of "answer_b"."""
    return re.sub(r"(\d+|(?<=[-_ ])[A-Za-z])$", "", name)


def alternates(prompt: Sequence[Message], first: Sequence[str] = ("user",)) -> bool:
    """Whether a prompt is a turn of `first`, an assistant's, one of `first`, …; a system prompt may come before."""
    rest = prompt[1:] if prompt and prompt[0].role == "system" else prompt
    return len(rest) % 2 == 1 and all(
        turn.role in (first if place % 2 == 0 else ("assistant",)) for place, turn in enumerate(rest)
    )
