"""Asking an OpenAI-compatible server: what is tried again, what is said, and where the key goes."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from align.evaluate import endpoint
from align.evaluate.endpoint import AT_ONCE, Refused, Reply, at_once, check_endpoint, reply
from preferences.errors import BadInput

KEY = "sk-the-test's-own-key"
TURNS = [{"role": "user", "content": "Say red."}]
Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]] | None  # status, JSON or text, headers; None hangs up


class Server(ThreadingHTTPServer):
    """Answers with what stands in `answers`, one after the other, the last one for ever."""

    daemon_threads = True

    def __init__(self, answers: list[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = answers
        self.asked: list[Any] = []
        self.keys: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Hanging up is what the test is about."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        """Nothing on the test's screen."""

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: Any) -> None:
        self.server.asked.append(body)
        self.server.keys.append(self.headers.get("Authorization"))
        answer = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        if answer is None:
            self.close_connection = True
            self.connection.close()
            return
        status, value, *headers = answer
        data = (value if isinstance(value, str) else json.dumps(value)).encode()
        self.send_response(status)
        for name, text in (headers[0] if headers else {}).items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving(*answers: Answer) -> Iterator[Server]:
    with Server(list(answers)) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """As many tries as always, and none of the waiting: what it would wait is noted."""
    waited: list[float] = []
    monkeypatch.setattr(endpoint.time, "sleep", waited.append)
    return waited


def said(text: str, reason: str = "stop") -> Answer:
    usage = {"completion_tokens": 3}
    return 200, {"choices": [{"message": {"content": text}, "finish_reason": reason}], "usage": usage}


def ask(server: Server, **keys: Any) -> Reply:
    return reply(server.url, "m", TURNS, **{"max_tokens": 5, "temperature": 0.5, "seed": 7, **keys})


def test_what_is_asked_and_what_is_read() -> None:
    with serving(said("red"), said("red cat", "length"), said("")) as server:
        assert ask(server) == Reply("red", True, 3)
        assert ask(server) == Reply("red cat", False, 3)
        assert ask(server, seed=None) == Reply("", True, 3)
    first = {"model": "m", "messages": TURNS, "temperature": 0.5, "top_p": 1.0, "max_tokens": 5, "seed": 7}
    assert server.asked == [first, first, {key: value for key, value in first.items() if key != "seed"}]
    assert server.keys == [None] * 3


def test_what_may_go_better_later_is_tried_again(no_pauses: list[float]) -> None:
    """A full server that says when to come back, two broken ones, and a connection that breaks off."""
    trouble: list[Answer] = [(429, "", {"Retry-After": "3"}), (503, {"error": {"message": "busy"}}), None, (500, "")]
    with serving(*trouble, said("red")) as server:
        assert ask(server).text == "red"
    assert len(server.asked) == 5
    assert no_pauses[0] == 3, "what the server asks for"
    assert all(0.75 * wait <= slept <= 1.25 * wait for wait, slept in zip((2, 4, 8), no_pauses[1:], strict=True))


def test_a_server_that_never_recovers_is_one_sentence(no_pauses: list[float]) -> None:
    with (
        serving((503, {"error": {"message": "over\nloaded."}})) as server,
        pytest.raises(BadInput, match=r"/v1: no answer from m after 7 tries \(503: over loaded\); go on by --resume"),
    ):
        ask(server)
    assert len(server.asked) == 7
    with serving((200, "")) as gone:
        pass
    with pytest.raises(BadInput, match=r"no answer from m after 7 tries \(.*refused.*\); go on by --resume"):
        ask(gone)
    with serving((429, "", {"Retry-After": "100000"}), said("red")) as server:
        ask(server)
    assert no_pauses[-1] == 60, "an hour is not waited for"


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        ((401, {"error": {"message": "Wrong key."}}), BadInput, r"refuses the key \(401: Wrong key\); look at THE_KEY"),
        ((404, {"error": {"message": "No model m."}}), BadInput, r"refuses a request to m \(404: No model m\)"),
        ((400, {"error": "Too long."}), Refused, r"refuses a request to m \(400: Too long\)"),
        ((400, "<html>" + "x" * 500), Refused, r"\(400: <html>x{194}\)$"),
        ((200, "<html>"), BadInput, "something else than a chat completion"),
        ((200, {"choices": []}), BadInput, "something else than a chat completion"),
        ((307, "", {"Location": "http://127.0.0.1:1/"}), BadInput, "sends elsewhere"),
    ],
)
def test_what_will_not_go_better_is_said_at_once(
    answer: Answer, kind: type, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    with serving(answer) as server, pytest.raises(BadInput, match=sentence) as told:
        ask(server, api_key_env="THE_KEY")
    assert type(told.value) is kind
    assert KEY not in str(told.value)
    assert len(server.asked) == 1 and server.keys == [f"Bearer {KEY}"]


def test_models_that_want_the_limit_under_its_newer_name() -> None:
    refusal = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    with serving((400, {"error": {"message": refusal}}), said("red")) as server:
        assert ask(server).text == "red"
    assert [body.get("max_tokens") for body in server.asked] == [5, None]
    assert [body.get("max_completion_tokens") for body in server.asked] == [None, 5]


def test_an_endpoint_is_looked_at_before_anything_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = (200, {"object": "list", "data": [{"id": "m"}, {"id": "n"}]})
    monkeypatch.delenv("THE_KEY", raising=False)
    with serving(listed) as server:
        check_endpoint(server.url, "m", None, "r.yaml")
        with pytest.raises(BadInput, match=r"r.yaml: key `model`: .* serves no 'o', only m, n"):
            check_endpoint(server.url, "o", None, "r.yaml")
        with pytest.raises(BadInput, match="the environment variable THE_KEY is not set"):
            check_endpoint(server.url, "m", "THE_KEY", "r.yaml")
        for odd in ("sk-secret\nline", "sk-secret-é"):
            monkeypatch.setenv("THE_KEY", odd)
            with pytest.raises(BadInput, match=r"THE_KEY: .* is no key: it has odd characters in it") as told:
                check_endpoint(server.url, "m", "THE_KEY", "r.yaml")
            assert "secret" not in str(told.value)
    with pytest.raises(BadInput, match=r"r.yaml: key `endpoint`: http://.* can't be reached \("):
        check_endpoint(server.url, "m", None, "r.yaml")
    with serving((403, {"error": {"message": "No."}})) as server, pytest.raises(BadInput, match="name the variable"):
        check_endpoint(server.url, "m", None, "r.yaml")
    for silent in ((404, ""), (200, []), (200, "x")):  # a server need not list its models
        with serving(silent) as server:
            check_endpoint(server.url, "m", None, "r.yaml")


def test_a_few_at_once_and_in_order() -> None:
    together = threading.Barrier(AT_ONCE, timeout=60)  # nobody goes on until so many have come
    busy: list[int] = []
    most: list[int] = []

    def work(number: int) -> int:
        busy.append(number)
        most.append(len(busy))
        together.wait()
        busy.remove(number)
        return -number

    assert at_once(work, list(range(3 * AT_ONCE))) == [-number for number in range(3 * AT_ONCE)]
    assert max(most) <= 2 * AT_ONCE - 1, "some leave while others come, and no more than that"


def test_the_first_error_stops_what_has_not_begun() -> None:
    begun: list[int] = []
    never = threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise BadInput("stop")
        never.wait(0.2)

    with pytest.raises(BadInput, match="stop"):
        at_once(work, list(range(400)))
    assert len(begun) < 100


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_a_key_that_the_server_says_back_is_not_shown(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    with serving((status, {"error": {"message": f"wrong key: Bearer {KEY}"}})) as server:
        with pytest.raises(BadInput) as error:
            ask(server, api_key_env="THE_KEY")
        assert KEY not in str(error.value) and "wrong key: Bearer [the key]" in str(error.value)
    with serving(said(f"You sent {KEY}.")) as server:  # what a model says is kept and shown
        assert ask(server, api_key_env="THE_KEY").text == "You sent [the key]."


@pytest.mark.parametrize(
    "answer",
    [
        (200, "[" * 100_000),
        (200, {"choices": [{"message": {"content": "x"}, "finish_reason": {"a": 1}}]}),
        (200, {"choices": [{"message": {"content": ["x"]}}]}),
        (200, {"choices": {}}),
        (200, "null"),
    ],
)
def test_an_answer_that_is_no_reply_is_one_sentence(answer: Answer) -> None:
    with serving(answer) as server, pytest.raises(BadInput, match="something else than a chat completion"):
        ask(server)


def test_who_answers_without_end_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "LARGEST", 2**20)
    with serving(said("x" * 2**21)) as server:
        for call in (lambda: ask(server), lambda: check_endpoint(server.url, "m", None, "r.yaml")):
            with pytest.raises(BadInput, match="answers with more than 1 MB"):
                call()
    assert len(server.asked) == 2  # it would not go better
    monkeypatch.setattr(endpoint, "TIMEOUT", 0.0)  # of the whole answer, however steadily it drips
    with serving(said("x" * 1000)) as server:
        assert endpoint._ask("POST", server.url, None, {}, timeout=1e-9)[0] is None


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1/v1",
        "http://127.0.0.1:abc/v1",
        "http://xn--/v1",
        f"http://{'a' * 300}/v1",
        "http://a..b/v1",
        "http://\x00/v1",
    ],
)
def test_an_address_that_can_be_none_is_one_sentence(url: str) -> None:
    with pytest.raises(BadInput, match=r"r.yaml: key `endpoint`: .* can't be reached"):
        check_endpoint(url, "m", None, "r.yaml")


def test_a_server_that_sends_elsewhere_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    with serving(said("red")) as other, serving((302, "", {"Location": f"{other.url}/models"})) as server:
        with pytest.raises(BadInput, match="sends elsewhere"):
            check_endpoint(server.url, "m", "THE_KEY", "r.yaml")
        with pytest.raises(BadInput, match="sends elsewhere"):
            ask(server, api_key_env="THE_KEY")
    assert other.asked == []
    with serving((307, "", {"Location": "/v1/models/"}), said("red")) as server:  # the same server
        check_endpoint(server.url, "m", None, "r.yaml")


def test_nobody_waits_for_what_runs_when_an_error_comes() -> None:
    forever = threading.Event()
    ended: list[int] = []

    def work(number: int) -> None:
        if number == 1:
            raise BadInput("no")
        forever.wait(60)
        ended.append(number)

    with pytest.raises(BadInput, match="no"):
        at_once(work, range(AT_ONCE))
    assert ended == []
    forever.set()
