"""`align serve` as a client sees it: OpenAI's shapes, streamed and whole, and an error for what it can't do."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from align.evaluate.pieces import Stopped, Text
from align.models.load import find_model, load_causal_lm, load_tokenizer
from align.models.sampling import sample
from tests.align.conftest import SAY, TRAIN, done, refused, write_recipe

KEY = "a key of the test's own"


@contextmanager
def served(*words: object, **environment: str) -> Iterator[str]:
    """`align serve` in a process of its own; its address."""
    command = [sys.executable, "-m", "align.cli", "serve", "--port", "0", *map(str, words)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, process.stderr.read()
        yield found.group()
    finally:
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=30)[1]
    assert process.returncode == 0 and "Traceback" not in errors, errors


@pytest.fixture(scope="module")
def adapter(tiny: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: an adapter on the tiny model, which has learnt something."""
    home = tmp_path_factory.mktemp("serve")
    keys = {**TRAIN, "max_steps": 3, "learning_rate": 1e-2}
    recipe = write_recipe(home / "dpo.yaml", **keys, model_name_or_path=str(tiny), dataset_name=str(pairs_file))
    done("dpo", recipe, "--output_dir", home / "dpo")
    return home / "dpo"


@pytest.fixture(scope="module")
def url(tiny: Path, adapter: Path) -> Iterator[str]:
    with served(tiny, adapter) as address:
        yield address


def ask(url: str, model: Path, /, **more: Any) -> httpx.Response:
    body = {"model": str(model), "messages": [{"role": "user", "content": "Say red."}], "max_tokens": 12, **more}
    return httpx.post(f"{url}/chat/completions", json=body, timeout=60)


def reply(url: str, model: Path, /, **more: Any) -> str:
    answer = ask(url, model, **more)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def events(answer: httpx.Response) -> list[Any]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in answer.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_a_run_folder_says_what_align_sample_says(url: str, tiny: Path, adapter: Path) -> None:
    """The same seed draws the same response, so the adapter is on, and template, end and settings are the same."""
    listed = httpx.get(f"{url}/models").json()
    assert [one["id"] for one in listed["data"]] == [str(tiny), str(adapter)]
    for model in (tiny, adapter):
        source = find_model(str(model))
        prompts = [[{"role": "user", "content": f"Say {what}."}] for what in SAY[:2]]
        drawn = sample(
            load_causal_lm(source).eval(),
            load_tokenizer(source),
            prompts,
            [7, 8],
            max_new_tokens=12,
            temperature=0.9,
            top_p=0.95,
        )
        settings = {"temperature": 0.9, "top_p": 0.95}
        said = [
            reply(url, model, messages=prompt, seed=seed, **settings)
            for prompt, seed in zip(prompts, (7, 8), strict=True)
        ]
        assert said == drawn.texts
    pair = [[reply(url, model, seed=seed) for seed in range(4)] for model in (tiny, adapter)]
    assert pair[0] != pair[1], "the adapter has learnt nothing, and the test would pass without it"


def test_a_stream_has_the_same_text_piece_by_piece(url: str, tiny: Path) -> None:
    whole = ask(url, tiny, seed=3).json()
    chunks = events(ask(url, tiny, seed=3, stream=True, stream_options={"include_usage": True}))
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert deltas[0]["role"] == "assistant"
    pieces = [delta.get("content", "") for delta in deltas]
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]
    assert sum(map(bool, pieces)) > 1
    ends = [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]]
    assert ends == [None] * (len(ends) - 1) + [whole["choices"][0]["finish_reason"]]
    assert chunks[-1]["usage"] == whole["usage"]
    assert whole["usage"]["total_tokens"] == whole["usage"]["prompt_tokens"] + whole["usage"]["completion_tokens"]


def test_length_stop_and_the_end(url: str, tiny: Path) -> None:
    short = ask(url, tiny, max_tokens=1, seed=3).json()
    assert short["choices"][0]["finish_reason"] == "length" and short["usage"]["completion_tokens"] == 1
    for seed in range(20):
        text = reply(url, tiny, seed=seed)
        if text.count(" ") >= 2:
            break
    stop = " " + text.split()[1]
    cut = ask(url, tiny, seed=seed, stop=[stop]).json()["choices"][0]
    assert cut == {**cut, "finish_reason": "stop", "message": {"role": "assistant", "content": text.split()[0]}}
    streamed = events(ask(url, tiny, seed=seed, stop=stop, stream=True))
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in streamed) == text.split()[0]
    assert reply(url, tiny, temperature=0) == reply(url, tiny, temperature=0)


class Letters:
    """A tokenizer whose tokens are the bytes of UTF-8."""

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return bytes(ids).decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("text", "stops", "told"),
    [
        ("añ🙂b", [], ["a", "ñ", "🙂", "b"]),
        ("a##b", ["###"], ["a", "##b"]),
        ("ab###c", ["###"], ["a", "b"]),
        ("ab##", ["###"], ["a", "b", "##"]),
        ("xaab", ["aab", "ab"], ["x"]),
        ("é#é", ["#é"], ["é"]),
    ],
)
def test_what_is_told_never_changes(text: str, stops: list[str], told: list[str]) -> None:
    """No half of a character, and nothing that turns out to begin a stop string."""
    heard: list[str] = []
    piece = Text(Letters(), stops, heard.append)
    try:
        for byte in text.encode():
            piece.take(byte)
    except Stopped:
        assert any(stop in text for stop in stops)
    piece.finish()
    assert heard == told


@pytest.mark.parametrize(
    ("change", "status", "param", "said"),
    [
        ({"model": "gpt-4"}, 404, "model", "no model 'gpt-4'"),
        ({"messages": []}, 400, "messages", "at least 1 item"),
        ({"messages": [{"role": "user", "content": "soup " * 300}]}, 400, "messages", "context is 128"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, None, "messages.0.content"),
        ({"n": 2}, 400, "n", "can't do that"),
        ({"tools": [{"type": "function"}]}, 400, "tools", "can't do that"),
        ({"temperature": -1}, 400, "temperature", "greater than or equal to 0"),
        ({"max_tokens": 0}, 400, "max_tokens", "greater than or equal to 1"),
        ({"stop": "x" * 1001}, 400, None, "at most 1000"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_it_cannot_do_is_an_error_in_openais_shape(
    url: str, tiny: Path, change: dict[str, Any], status: int, param: str | None, said: str, streamed: bool
) -> None:
    answer = ask(url, tiny, **{"stream": streamed, **change})
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    assert said in error["message"] and (param is None or error["param"] == param)


def test_what_clients_send_along_is_no_error(url: str, tiny: Path) -> None:
    harmless = {"n": 1, "tools": [], "frequency_penalty": 0, "presence_penalty": 0.0, "user": "u", "logprobs": False}
    parts = [{"role": "user", "content": [{"type": "text", "text": "Say "}, {"type": "text", "text": "red."}]}]
    assert reply(url, tiny, seed=1, messages=parts, **harmless) == reply(url, tiny, seed=1)


def test_requests_that_are_none(url: str) -> None:
    post = f"{url}/chat/completions"
    assert httpx.post(post, content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
    assert httpx.post(post, content=b"[]", headers={"Content-Type": "application/json"}).status_code == 400
    assert httpx.post(post, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert httpx.post(f"{url}/nothing", json={}).status_code == 404
    assert httpx.get(post).status_code == 404
    assert httpx.put(post, json={}).status_code == 501
    assert all("error" in answer.json() for answer in (httpx.get(post), httpx.put(post, json={})))
    host, port = place(url)
    with socket.create_connection((host, port)) as long:
        long.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 5000000\r\n\r\n")
        assert long.makefile("rb").read().startswith(b"HTTP/1.1 413 ")
    with socket.create_connection((host, port)) as long:  # more digits than Python makes a number of
        long.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n")
        assert long.makefile("rb").read().startswith(b"HTTP/1.1 413 ")


def place(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    return host, int(port)


def test_many_at_once_and_some_who_leave(url: str, tiny: Path, adapter: Path) -> None:
    """Requests wait for their turn; who hangs up in the middle does not keep the others waiting."""
    wanted = {(model, seed): reply(url, model, seed=seed) for model in (tiny, adapter) for seed in range(4)}
    body = json.dumps({"model": str(tiny), "messages": [{"role": "user", "content": "Say red."}], "stream": True})
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    for _ in range(4):
        with socket.create_connection(place(url)) as leaving:
            leaving.sendall((head + body).encode())
    got: dict[tuple[Path, int], str] = {}

    def one(model: Path, seed: int) -> None:
        got[model, seed] = reply(url, model, seed=seed)

    threads = [threading.Thread(target=one, args=key) for key in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == wanted


def test_a_key_is_asked_for(tiny: Path) -> None:
    with served(tiny, "--api-key-env", "TEST_KEY", TEST_KEY=KEY) as url:
        assert httpx.get(f"{url}/models").status_code == 401
        wrong = httpx.get(f"{url}/models", headers={"Authorization": "Bearer wrong"})
        assert wrong.status_code == 401 and wrong.json()["error"]["code"] == "invalid_api_key"
        assert httpx.get(f"{url}/models", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
        assert ask(url, tiny).status_code == 401


def test_what_is_refused_before_anything_is_loaded(
    tiny: Path, reward_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no such folder" in refused("serve", "./nothing")
    assert "named twice" in refused("serve", tiny, f"{tiny}/")
    assert "TEST_NO_KEY" in refused("serve", tiny, "--api-key-env", "TEST_NO_KEY")
    monkeypatch.setenv("TEST_ODD_KEY", "clé")  # which no client could send
    assert "printable ASCII" in refused("serve", tiny, "--api-key-env", "TEST_ODD_KEY")
    assert "is a reward model" in refused("serve", reward_run, "--port", 0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "cannot listen" in refused("serve", tiny, "--port", taken.getsockname()[1])
