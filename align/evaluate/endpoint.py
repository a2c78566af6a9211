"""Asking a model behind an OpenAI-compatible address: `align serve`, vLLM, a provider's API.

The key goes from its environment variable into the request's header and nowhere else: no log, no manifest, no error.
"""

import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from preferences.errors import BadInput

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 4  # requests
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # seconds before each further try
LONGEST_WAIT = 60.0  # that a server's Retry-After may ask for
TIMEOUT = 600.0  # seconds for a reply, which may wait in the server's line
_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # what may go better a little later


class Refused(BadInput):
    """The server takes no such request, now or later: too long for the model, say, or against its rules."""


class Reply(NamedTuple):
    """What the model said; whether it ended by itself and in how many tokens, where the server says."""

    text: str
    ended: bool | None
    tokens: int | None


def ask(
    endpoint: str,
    model: str,
    messages: Sequence[dict[str, str]],
    *,
    api_key_env: str | None = None,
    max_tokens: int,
    temperature: float,
    seed: int | None = None,
) -> str:
    """The text of `reply`."""
    said = reply(
        endpoint,
        model,
        messages,
        api_key_env=api_key_env,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
    )
    return said.text


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
        answer, trouble = _post(url, body, _key(api_key_env))
        if answer is not None and answer.status_code == 400 and "max_completion_tokens" in answer.text:
            body["max_completion_tokens"] = body.pop("max_tokens", max_tokens)  # as newer models of OpenAI want it
            answer, trouble = _post(url, body, _key(api_key_env))
        if answer is not None and answer.status_code == 200:
            return _read(answer, endpoint)
        if answer is not None and answer.status_code not in _AGAIN:
            kind = Refused if answer.status_code in (400, 413, 422) else BadInput
            raise kind(_refusal(answer, endpoint, model, api_key_env))
        if wait is not None:
            time.sleep(_pause(answer, wait))
    said = trouble if answer is None else f"{answer.status_code}: {_said(answer)}"
    raise BadInput(
        f"{endpoint}: no answer from {model} after {len(WAITS) + 1} tries ({said}); go on by --resume when it works"
    )


def check_endpoint(endpoint: str, model: str, api_key_env: str | None, where: str) -> None:
    """Raise BadInput where the key is not there, nobody listens, the key is refused, or the model is not served."""
    import httpx

    if api_key_env is not None and _key(api_key_env) is None:
        raise BadInput(f"{where}: key `api_key_env`: the environment variable {api_key_env} is not set; put the key in")
    url = endpoint.rstrip("/") + "/models"
    try:
        answer = _client().get(url, headers=_headers(_key(api_key_env)), timeout=30)
    except httpx.HTTPError as error:
        raise BadInput(f"{where}: key `endpoint`: {endpoint} can't be reached ({_reason(error)})") from None
    if answer.status_code in (401, 403):
        raise BadInput(_refusal(answer, endpoint, model, api_key_env))
    try:
        served = [str(one["id"]) for one in answer.json()["data"]] if answer.status_code == 200 else []
    except (ValueError, KeyError, TypeError):
        served = []
    if served and model not in served:  # some servers list nothing, and answer all the same
        listed = ", ".join(served[:5]) + (", …" if len(served) > 5 else "")
        raise BadInput(f"{where}: key `model`: {endpoint} serves no {model!r}, only {listed}")


def at_once(work: Callable[[T], R], tasks: Sequence[T]) -> list[R]:
    """The work done on each task, a few at a time, in order. The first error stops what has not begun."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = [pool.submit(work, task) for task in tasks]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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


def _post(url: str, body: dict[str, Any], key: str | None) -> "tuple[httpx.Response | None, str]":
    """(the server's answer, "") or (None, why there is none)."""
    import httpx

    try:
        return _client().post(url, json=body, headers=_headers(key)), ""
    except httpx.HTTPError as error:
        return None, _reason(error)


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


def _read(answer: "httpx.Response", endpoint: str) -> Reply:
    try:
        value = answer.json()
        choice = value["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
        tokens = (value.get("usage") or {}).get("completion_tokens")
        if not isinstance(text, str | None):
            raise TypeError
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise BadInput(
            f"{endpoint}: answered with something else than a chat completion; is it an OpenAI-compatible /v1?"
        ) from None
    return Reply(
        whole(text or ""), {"stop": True, "length": False}.get(reason), tokens if isinstance(tokens, int) else None
    )


def _refusal(answer: "httpx.Response", endpoint: str, model: str, api_key_env: str | None) -> str:
    code = answer.status_code
    if code in (401, 403):
        mend = f"look at {api_key_env}" if api_key_env else "name the variable that holds it by `api_key_env`"
        return f"{endpoint}: refuses the key ({code}: {_said(answer)}); {mend}"
    if 300 <= code < 400:
        return f"{endpoint}: sends elsewhere ({code}); name that address itself"
    return f"{endpoint}: refuses a request to {model} ({code}: {_said(answer)})"


def _said(answer: "httpx.Response") -> str:
    """The server's own words, on one line and not many."""
    try:
        value = answer.json()
        text = value["error"]["message"] if isinstance(value.get("error"), dict) else str(value.get("error", value))
    except (ValueError, KeyError, AttributeError):
        text = answer.text
    return " ".join(str(text).split())[:200].rstrip(".") or answer.reason_phrase
