"""What the records of the contract are made of, and how one is checked: turns, responses, edits, marked passages."""

from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from preferences.errors import BadInput


class Strict(BaseModel):
    """No unknown keys, no silent conversions ("2" is not 2), no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Message(Strict):
    """One turn, as in TRL's conversational format."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


def _prompt(value: Any) -> Any:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


def _not_blank(messages: list[Message]) -> list[Message]:
    if not messages or not messages[-1].content.strip():
        raise ValueError("is empty; give a text, or a list of turns whose last one says something")
    if messages[-1].role == "assistant":
        raise ValueError("ends with an assistant turn; that turn belongs in the responses")
    return messages


def _time_zone(value: str) -> str:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("is not an ISO 8601 time such as 2026-11-21T10:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError("has no time zone; write UTC as in 2026-11-21T10:00:00Z")
    return value


def _id(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Prompt = Annotated[list[Message], BeforeValidator(_prompt), AfterValidator(_not_blank)]
Time = Annotated[str, AfterValidator(_time_zone)]
Id = Annotated[str, BeforeValidator(_id), Field(min_length=1)]
Rank = Annotated[int, Field(ge=1, le=1_000_000)]


class Response(Strict):
    """One response to a prompt: `messages`, with the model that wrote it where that is known."""

    messages: list[Message] = Field(min_length=1)
    model: str | None = None
    id: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"text": value}
        if not isinstance(value, dict) or "text" not in value:
            return value
        if "messages" in value:
            raise ValueError("has both `text` and `messages`; give one of them")
        text = value["text"]
        if not isinstance(text, str):
            raise ValueError("has a `text` that is not a string")
        rest = {key: item for key, item in value.items() if key != "text"}
        return {"messages": [{"role": "assistant", "content": text}], **rest}


class Edit(Strict):
    """A response as the rater would have written it; `response` counts from 0 in import order."""

    response: Annotated[int, Field(ge=0)]
    text: Annotated[str, Field(min_length=1)]


class Span(Strict):
    """A passage of a response that a rater marked; `response` counts from 0 in import order.

    `start` and `end` count Unicode characters of the response's visible text, Markdown signs left out; `text` is the
    passage itself.
    """

    response: Annotated[int, Field(ge=0)]
    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=1)]
    text: Annotated[str, Field(min_length=1)]
    mark: Literal["good", "bad"]


M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], value: Any, where: str) -> M:
    """Check `value` against `model`. Raises BadInput with one sentence that opens with `where` and names the key."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ""
        for part in first["loc"]:
            key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = (
                f"unknown key; known are {', '.join(model.model_fields)}" if len(first["loc"]) == 1 else "unknown key"
            )
        raise BadInput(f"{where}: {key + ': ' if key else ''}{message}") from None
