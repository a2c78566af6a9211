"""Endpoints for the arena to ask: `align serve`, and one of the tests' own that does wrong whatever can be."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TINY = {"max_tokens": 8, "temperature": 1.0}  # what leaves room for several turns in the tiny model's context
HTML = "<img src=x onerror=\"document.title='owned'\"> **bold** <script>document.title='owned'</script>"


@contextmanager
def align_serve(*folders: Path, key: str | None = None) -> Iterator[str]:
    """`align serve` in a process of its own; its base_url."""
    words = [sys.executable, "-m", "align.cli", "serve", "--port", "0", *map(str, folders)]
    words += ["--api-key-env", "SERVED_KEY"] if key else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SERVED_KEY": key or ""}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    assert process.stdout is not None
    try:
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found
        yield found.group()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


class Outside(ThreadingHTTPServer):
    """The outside world: what a model does stands in its name. Keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.mended: set[str] = set()  # models that do as "say" by now
        self.go_on = threading.Event()  # what "waits" waits for

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who is asked may go away in the middle."""


@contextmanager
def outside() -> Iterator[Outside]:
    server = Outside()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.go_on.set()
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Outside

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        self.server.headers.append(dict(self.headers))
        kind, _, text = body["model"].partition(":")
        if body["model"] in self.server.mended:
            kind = "say"
        getattr(self, "_" + kind.replace("-", "_"))(text or "Well.", body)

    def _head(self, status: int = 200, kind: str = "text/event-stream", **more: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **more}.items():
            self.send_header(name, value)
        self.end_headers()

    def _event(self, delta: Any, reason: str | None = None) -> None:
        value = {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")
        self.wfile.flush()

    def _end(self) -> None:
        self._event({}, "stop")
        self.wfile.write(b"data: [DONE]\n\n")

    def _say(self, text: str, body: Any) -> None:
        self._head()
        self._event({"role": "assistant", "content": ""})
        for word in re.findall(r"\s*\S+|\s+$", text):
            self._event({"content": word})
        self._end()

    def _echo(self, text: str, body: Any) -> None:
        """Says its name and what it was asked last."""
        self._say(f"{text} hears {body['messages'][-1]['content']}", body)

    def _slowly(self, text: str, body: Any) -> None:
        self._head()
        for word in re.findall(r"\s*\S+", text * 30):
            self._event({"content": word})
            time.sleep(0.05)
        self._end()

    def _waits(self, text: str, body: Any) -> None:
        """Begins at once, and ends when the test lets it."""
        self._head()
        self._event({"content": text + " and"})
        self.server.go_on.wait(30)
        self._event({"content": " so on."})
        self._end()

    def _empty(self, text: str, body: Any) -> None:
        self._head()
        self._end()

    def _html(self, text: str, body: Any) -> None:
        self._head(kind="text/html")
        self.wfile.write(b"<!doctype html><title>Sign in to the wifi</title>" * 100)

    def _error(self, text: str, body: Any) -> None:
        self._head(500, "application/json")
        self.wfile.write(b'{"error": {"message": "model secret-name-7b is overloaded"}}')

    def _moved(self, text: str, body: Any) -> None:
        self._head(302, Location=f"{self.server.url}/elsewhere")

    def _late_error(self, text: str, body: Any) -> None:
        self._head()
        self._event({"content": "So far"})
        self.wfile.write(b'data: {"error": {"message": "model secret-name-7b ran out of memory"}}\n\n')

    def _garbage(self, text: str, body: Any) -> None:
        self._head()
        self.wfile.write(b"data: {\xff\xfe\n\n")

    def _shapes(self, text: str, body: Any) -> None:
        self._head()
        self.wfile.write(b'data: {"choices": [{"delta": {"content": {"deep": 1}}}]}\n\n')

    def _deep(self, text: str, body: Any) -> None:
        self._head()
        self.wfile.write(b"data: " + b"[" * 200_000 + b"\n\n")

    def _dies(self, text: str, body: Any) -> None:
        self._head()
        self._event({"content": "I was just about to"})
        self.connection.close()

    def _hangs(self, text: str, body: Any) -> None:
        self.server.go_on.wait(30)

    def _big(self, text: str, body: Any) -> None:
        """Ten megabytes of text."""
        self._head()
        for _ in range(100):
            self._event({"content": "x" * 100_000})
        self._end()

    def _one_line(self, text: str, body: Any) -> None:
        """A line that never ends."""
        self._head()
        for _ in range(1000):
            self.wfile.write(b"y" * 100_000)

    def _odd(self, text: str, body: Any) -> None:
        """NUL, halves of characters, a pair in two pieces."""
        self._head()
        for piece in ("a\0b ", "\udc00 ", "\ud83d", "\ude42", " \ud83d"):
            self._event({"content": piece})
        self._event({"content": None, "reasoning_content": "hm"})
        self._end()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""
