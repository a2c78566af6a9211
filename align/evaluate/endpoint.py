"""Asking a model behind an OpenAI-compatible address: `align serve`, vLLM, a provider's API.

The key goes from its environment variable into the request's header and nowhere else: no log, no manifest, no error.
"""

import os
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urljoin, urlsplit

from preferences.errors import BadInput

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 4  # requests
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # seconds before each further try
LONGEST_WAIT = 60.0  # that a server's Retry-After may ask for
TIMEOUT = 600.0  # seconds for a reply, which may wait in the server's line
LARGEST = 32 * 2**20  # bytes of a reply
_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # what may go better a little later


class Refused(BadInput):
    """The server takes no such request, now or later: too long for the model, say, or against its rules."""


class Reply(NamedTuple):
    """What the model said; whether it ended by itself and in how many tokens, where the server says."""

    text: str
    ended: bool | None
    tokens: int | None


def reply(
    endpoint: str,
    model: str,
    messages: Sequence[dict[str, str]],
    *,
    api_key_env: str | None = None,
    max_tokens: int,
    temperature: float,
    seed: int | None = None,
) -> Reply:
    """One reply. What may go better later is tried again, with growing pauses. Raises BadInput when it never does,
    and Refused for a request that will never be taken."""
    body: dict[str, Any] = {"model": model, "messages": list(messages), "temperature": temperature, "top_p": 1.0}
    body["max_tokens"] = max_tokens
    if seed is not None:
        body["seed"] = seed
    url = endpoint.rstrip("/") + "/chat/completions"
    for wait in (*WAITS, None):
        answer, trouble = _ask("POST", url, api_key_env, body)
        if answer is not None and answer.status_code == 400 and "max_completion_tokens" in answer.text:
            body["max_completion_tokens"] = body.pop("max_tokens", max_tokens)  # as newer models of OpenAI want it
            answer, trouble = _ask("POST", url, api_key_env, body)
        if answer is not None and answer.status_code == 200:
            return _read(answer, endpoint, api_key_env)
        if answer is not None and answer.status_code not in _AGAIN:
            kind = Refused if answer.status_code in (400, 413, 422) else BadInput
            raise kind(_refusal(answer, endpoint, model, api_key_env))
        if wait is not None:
            time.sleep(_pause(answer, wait))
    said = trouble if answer is None else f"{answer.status_code}: {_said(answer, api_key_env)}"
    raise BadInput(
        f"{endpoint}: no answer from {model} after {len(WAITS) + 1} tries ({said}); go on by --resume when it works"
    )


def check_endpoint(endpoint: str, model: str, api_key_env: str | None, where: str) -> None:
    """Raise BadInput where the key is not there, nobody listens, the key is refused, or the model is not served."""
    if api_key_env is not None and _key(api_key_env) is None:
        raise BadInput(f"{where}: key `api_key_env`: the environment variable {api_key_env} is not set; put the key in")
    url = endpoint.rstrip("/") + "/models"
    answer, trouble = _ask("GET", url, api_key_env, timeout=30)
    if answer is None:
        raise BadInput(f"{where}: key `endpoint`: {endpoint} can't be reached ({trouble})")
    if answer.status_code in (401, 403) or _leads_away(answer, url):
        raise BadInput(f"{where}: {_refusal(answer, endpoint, model, api_key_env)}")
    try:
        served = [str(one["id"]) for one in answer.json()["data"]] if answer.status_code == 200 else []
    except (ValueError, KeyError, TypeError, RecursionError):
        served = []
    if served and model not in served:  # some servers list nothing, and answer all the same
        listed = ", ".join(name[:80] for name in served[:5]) + (", …" if len(served) > 5 else "")
        raise BadInput(f"{where}: key `model`: {endpoint} serves no {model!r}, only {listed}")


def at_once(work: Callable[[T], R], tasks: Sequence[T]) -> list[R]:
    """The work done on each task, a few at a time, in order. The first error, or Ctrl-C, stops what has not begun, and
    waits for nobody: a request may take its ten minutes.
    """
    waiting, done, stop = queue.SimpleQueue[int](), queue.SimpleQueue[tuple[int, Any, Any]](), threading.Event()
    for number in range(len(tasks)):
        waiting.put(number)

    def go_on() -> None:
        while not stop.is_set():
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((number, work(tasks[number]), None))
            except BaseException as error:  # raised where the results are awaited
                done.put((number, None, error))

    for _ in range(min(AT_ONCE, len(tasks))):
        threading.Thread(target=go_on, daemon=True).start()
    found: dict[int, R] = {}
    try:
        while len(found) < len(tasks):
            number, result, error = done.get()
            if error is not None:
                raise error
            found[number] = result
    finally:
        stop.set()
    return [found[number] for number in range(len(tasks))]


def whole(text: str) -> str:
    """The text with U+FFFD for each half of a character (a lone surrogate), so that it can be sent and hashed."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@lru_cache(maxsize=1)
def _client() -> "httpx.Client":
    """One for all threads, so that connections are used again. It follows nobody elsewhere: the key would go along."""
    import httpx

    return httpx.Client(timeout=httpx.Timeout(TIMEOUT, connect=10), follow_redirects=False)


def _key(api_key_env: str | None) -> str | None:
    key = "" if api_key_env is None else os.environ.get(api_key_env, "").strip()
    if not key.isascii() or not key.isprintable():  # else the library's own error would show it
        raise BadInput(f"{api_key_env}: what this environment variable holds is no key: it has odd characters in it")
    return key or None


def _headers(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def _ask(
    method: str, url: str, api_key_env: str | None, body: dict[str, Any] | None = None, timeout: float = TIMEOUT
) -> "tuple[httpx.Response | None, str]":
    """(the server's answer, "") or (None, why there is none). Who does not end is hung up on. Raises BadInput where the
    answer is larger than any reply.
    """
    import httpx

    end, content = time.monotonic() + timeout, bytearray()
    headers, limits = _headers(_key(api_key_env)), httpx.Timeout(timeout, connect=10)
    try:
        with _client().stream(method, url, json=body, headers=headers, timeout=limits) as answer:
            for block in answer.iter_bytes():
                content += block
                if len(content) > LARGEST:
                    raise BadInput(
                        f"{url}: answers with more than {LARGEST // 2**20} MB; is it an OpenAI-compatible /v1?"
                    )
                if time.monotonic() > end:
                    return None, "it did not end its answer in time"
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # UnicodeError: of a host that can't be one
        return None, _reason(error)
    kept = {
        name: answer.headers[name] for name in ("content-type", "retry-after", "location") if name in answer.headers
    }
    return httpx.Response(answer.status_code, headers=kept, content=bytes(content)), ""


def _leads_away(answer: "httpx.Response", url: str) -> bool:
    """Whether the server sends its clients to another one, where the key must not go."""
    there = urlsplit(urljoin(url, answer.headers.get("location", "")))
    return 300 <= answer.status_code < 400 and there[:2] != urlsplit(url)[:2]


def _reason(error: Exception) -> str:
    import httpx

    if isinstance(error, httpx.TimeoutException):
        return "it did not answer in time"
    return str(error) or type(error).__name__


def _pause(answer: "httpx.Response | None", wait: float) -> float:
    """Seconds to wait: what the server asks for, else `wait` give or take a quarter, so that clients don't march."""
    asked = answer.headers.get("retry-after", "") if answer is not None else ""
    try:
        return min(max(float(asked), 0.0), LONGEST_WAIT)
    except ValueError:
        return wait * random.uniform(0.75, 1.25)


def _read(answer: "httpx.Response", endpoint: str, api_key_env: str | None) -> Reply:
    try:
        value = answer.json()
        choice = value["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
        tokens = (value.get("usage") or {}).get("completion_tokens")
        if not isinstance(text, str | None) or not isinstance(reason, str | None):
            raise TypeError
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise BadInput(
            f"{endpoint}: answered with something else than a chat completion; is it an OpenAI-compatible /v1?"
        ) from None
    known = isinstance(tokens, int) and not isinstance(tokens, bool)
    ended = {"stop": True, "length": False}.get(reason or "")
    return Reply(_without_key(whole(text or ""), api_key_env), ended, tokens if known else None)


def _refusal(answer: "httpx.Response", endpoint: str, model: str, api_key_env: str | None) -> str:
    code = answer.status_code
    if code in (401, 403):
        mend = f"look at {api_key_env}" if api_key_env else "name the variable that holds it by `api_key_env`"
        return f"{endpoint}: refuses the key ({code}: {_said(answer, api_key_env)}); {mend}"
    if 300 <= code < 400:
        return f"{endpoint}: sends elsewhere ({code}); name that address itself"
    return f"{endpoint}: refuses a request to {model} ({code}: {_said(answer, api_key_env)})"


def _without_key(text: str, api_key_env: str | None) -> str:
    """A text without the key, which some servers say back."""
    key = _key(api_key_env)
    return text if key is None or len(key) < 6 else text.replace(key, "[the key]")


def _said(answer: "httpx.Response", api_key_env: str | None) -> str:
    """The server's own words, on one line and not many, and never the key."""
    try:
        value = answer.json()
        text = value["error"]["message"] if isinstance(value.get("error"), dict) else str(value.get("error", value))
    except (ValueError, KeyError, AttributeError, RecursionError):
        text = answer.text
    return " ".join(_without_key(str(text), api_key_env).split())[:200].rstrip(".") or answer.reason_phrase
