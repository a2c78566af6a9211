"""An endpoint whose verdicts the test knows: it reads the question as the template asks it, and replies by a rule."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TEMPLATE = "{mark} Q\n{prompt}\n{mark} 1\n{first}\n{mark} 2\n{second}\n{mark} END\nVerdict?"
_QUESTION = re.compile(r"(#### \w{12}) Q\n(.*)\n\1 1\n(.*)\n\1 2\n(.*)\n\1 END\nVerdict\?", re.DOTALL)

Rule = Callable[[str, str, str], str]  # (prompt, first, second) -> reply


class JudgeServer(ThreadingHTTPServer):
    """`rule` says what the judge replies; a reply that begins with a number of three digits is that status."""

    daemon_threads = True

    def __init__(self, rule: Rule) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.rule = rule
        self.asked: list[dict[str, Any]] = []
        self.shown: list[tuple[str, str, str]] = []
        self.keys: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asks may be killed in the middle."""


class _Handler(BaseHTTPRequestHandler):
    server: JudgeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing on the test's screen."""

    def do_GET(self) -> None:
        self._send(200, {"object": "list", "data": [{"id": "judge"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.keys.append(self.headers.get("Authorization"))
        self.server.asked.append(body)
        found = _QUESTION.fullmatch(body["messages"][-1]["content"])
        assert found, body
        self.server.shown.append(found.groups()[1:])  # type: ignore[arg-type]
        reply = self.server.rule(*found.groups()[1:])
        if re.match(r"\d{3} ", reply):
            self._send(int(reply[:3]), {"error": {"message": reply[4:]}})
        else:
            message = {"role": "assistant", "content": reply}
            self._send(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def _send(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def judging(rule: Rule) -> Iterator[JudgeServer]:
    server = JudgeServer(rule)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
