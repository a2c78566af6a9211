"""The models that raters may chat with: where they answer, as a file of the server's operator says, and asking one.

Only the operator names addresses and keys. They stay in this process: never in the database, in logs, or in the API,
where a model is known by its name in the file. What an endpoint sends is hostile: of any length, shape and speed.
"""

import asyncio
import json
import os
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import httpx
import yaml
from pydantic import BaseModel, ConfigDict, Field

from preferences.contract import validate
from preferences.errors import BadInput

CONNECT = 10.0  # seconds to be let in
SILENCE = 60.0  # seconds between two pieces of a reply, and before the first one
LONGEST = 300.0  # seconds for a whole reply
MOST_TEXT = 40_000  # characters of a reply; the rest is cut off
MOST_BYTES = 16_000_000  # of all that an endpoint may send for one reply, most of it around the text


class Entry(BaseModel):
    """What the file says of one model."""

    model_config = ConfigDict(extra="forbid", strict=True)

    base_url: str
    model: Annotated[str, Field(min_length=1)]
    key_env: Annotated[str, Field(min_length=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    system: Annotated[str, Field(min_length=1)] | None = None


@dataclass(frozen=True)
class Endpoint:
    """A model and how it is asked."""

    name: str
    url: str = field(repr=False)
    body: dict[str, Any] = field(repr=False)
    system: str | None = field(repr=False)
    key: str | None = field(repr=False)


class Failed(Exception):
    """No whole reply came: the endpoint is `away`, too `slow`, or what it sent is `garbled`. `what` is for the log."""

    def __init__(self, why: Literal["away", "slow", "garbled"], what: str) -> None:
        super().__init__(what)
        self.why = why
        self.what = what


# --- the file ---------------------------------------------------------------------------------------------------


def read_endpoints(path: str) -> dict[str, Endpoint]:
    """The models that a YAML file names. Raises BadInput that names file and key."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            read = yaml.load(file, _UniqueKeys)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise BadInput(f"cannot read the models' file {path}: {reason}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise BadInput(f"{path}{where}: not YAML ({getattr(error, 'problem', None) or 'it can not be read'})") from None
    if not isinstance(read, dict) or not read:
        raise BadInput(f"{path}: names no model; write `NAME:` and below it its base_url and model")
    return {str(name): _endpoint(path, name, entry) for name, entry in read.items()}


def _endpoint(path: str, name: Any, entry: Any) -> Endpoint:
    where = f"{path}, {name}"
    if not isinstance(name, str) or not 0 < len(name) <= 100 or not name.isprintable():
        raise BadInput(f"{where}: a model's name is a text of 1 to 100 printable characters; put it in quotes")
    if not isinstance(entry, dict):
        raise BadInput(f"{where}: give it keys, base_url and model at least")
    one = validate(Entry, entry, where)
    _check_url(where, one.base_url)
    key = None
    if one.key_env is not None:
        key = os.environ.get(one.key_env, "")
        if not key or not key.isascii() or not key.isprintable():
            raise BadInput(f"{where}: key_env: there is no key in the environment variable {one.key_env}; put it there")
    body = {"model": one.model, "stream": True, "max_tokens": one.max_tokens}
    body |= {} if one.temperature is None else {"temperature": one.temperature}
    return Endpoint(name, one.base_url.rstrip("/") + "/chat/completions", body, one.system, key)


def _check_url(where: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        fits = fits and url.isascii() and url.isprintable() and " " not in url and not parts.query + parts.fragment
        safe = parts.username is None and parts.password is None
    except ValueError:
        fits = safe = False
    if not fits:
        raise BadInput(f"{where}: base_url: give an http:// or https:// address such as http://127.0.0.1:8000/v1")
    if not safe:
        raise BadInput(f"{where}: base_url: no user name or password belongs here; put a key into a variable: key_env")


class _UniqueKeys(yaml.SafeLoader):
    """YAML that refuses a key given twice, where PyYAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [one.value for one, _ in node.value]
        twice = next((one for one, _ in node.value if names.count(one.value) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"{twice.value!r} stands there twice", twice.start_mark)
        return super().construct_mapping(node, deep)


# --- asking -----------------------------------------------------------------------------------------------------


async def ask(endpoint: Endpoint, turns: Sequence[dict[str, str]], hear: Callable[[str], None]) -> None:
    """Have a model go on with a conversation; `hear` is told the reply piece by piece. Raises Failed.

    A reply is whole when the endpoint says so, or when it reaches MOST_TEXT.
    """
    system = [{"role": "system", "content": endpoint.system}] if endpoint.system else []
    body = {**endpoint.body, "messages": [*system, *turns]}
    headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity", "User-Agent": "Concord"}
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key}"
    patience = httpx.Timeout(SILENCE, connect=CONNECT)
    try:
        async with (
            asyncio.timeout(LONGEST),  # httpx's are for each piece, and pieces may come for ever
            httpx.AsyncClient(verify=_trust(), timeout=patience, follow_redirects=False) as client,
            client.stream("POST", endpoint.url, json=body, headers=headers) as response,
        ):
            if response.status_code != 200:
                raise Failed("away" if response.status_code >= 500 else "garbled", f"status {response.status_code}")
            await _listen(response, hear)
    except (TimeoutError, httpx.TimeoutException) as error:
        raise Failed("slow", type(error).__name__) from None
    except (httpx.ConnectError, httpx.ProxyError) as error:
        raise Failed("away", type(error).__name__) from None
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
        raise Failed("garbled", type(error).__name__) from None  # without its words, which may quote the address


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()


async def _listen(response: httpx.Response, hear: Callable[[str], None]) -> None:
    """Read server-sent events up to the end of the reply. Raises Failed."""
    line_so_far: list[bytes] = []
    read, text, finished = 0, _Text(hear), False
    async for data in response.aiter_raw():
        read += len(data)
        if read > MOST_BYTES:
            raise Failed("garbled", "too much")
        line_so_far.append(data)
        if b"\n" not in data:
            continue
        *lines, rest = b"".join(line_so_far).split(b"\n")
        line_so_far = [rest]
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            event = line.removeprefix(b"data:").strip()
            if event == b"[DONE]":
                return text.end()
            piece, ends = _piece(event)
            finished = finished or ends
            if not text.take(piece):
                return text.end()
    if not finished:
        raise Failed("garbled", "broke off")
    text.end()


def _piece(event: bytes) -> tuple[str, bool]:
    """The text of one event, and whether it says that the reply is over. Raises Failed."""
    try:
        value = json.loads(event)
        choices = value.get("choices")
        if "error" in value or not isinstance(choices, list):
            raise Failed("garbled", "an error")
        if not choices:  # the last one, with the numbers of tokens
            return "", False
        piece = (choices[0].get("delta") or {}).get("content") or ""
        ends = choices[0].get("finish_reason") is not None
    except (ValueError, AttributeError, RecursionError):
        raise Failed("garbled", "no event of a chat") from None
    if not isinstance(piece, str):
        raise Failed("garbled", "no text")
    return piece, ends


class _Text:
    """Makes of the pieces a text that can be stored: no NUL, no halves of characters, at most MOST_TEXT."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        self.hear, self.half, self.length = hear, "", 0

    def take(self, piece: str) -> bool:
        """False if no more fits."""
        piece = self.half + piece
        self.half = piece[-1:] if "\ud800" <= piece[-1:] <= "\udbff" else ""  # the other half may come
        self._tell(piece[: len(piece) - len(self.half)])
        return self.length < MOST_TEXT

    def end(self) -> None:
        self._tell(self.half)

    def _tell(self, piece: str) -> None:
        whole = piece.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")
        whole = whole[: MOST_TEXT - self.length]
        self.length += len(whole)
        if whole:
            self.hear(whole)
