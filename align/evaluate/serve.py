"""`align serve`: models behind a small HTTP server that speaks OpenAI's API for chats, to compare or to try them.

It needs nothing beyond what training needs. `transformers serve` wants FastAPI and more installed, and loads whatever
model a request names; here only the models of the command line answer.
"""

import contextlib
import json
import os
import random
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from align.data.lengths import context_length, token_ids
from align.evaluate.pieces import Stopped, Text
from align.models.load import device, find_model, load_causal_lm, load_config, load_tokenizer
from align.models.sampling import stream
from align.run.progress import say
from preferences.errors import BadInput

LONGEST_BODY = 4_000_000  # bytes of a request
NEW_TOKENS = 512  # of a reply, where the request does not say
SILENCE = 60  # seconds for which a connection may say nothing
# Keys of OpenAI's API that would change the reply and are not done here, with the values that change nothing.
_NOT_DONE: dict[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "tools": (None, []),
    "functions": (None, []),
    "logprobs": (None, False),
    "logit_bias": (None, {}),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "response_format": (None, {"type": "text"}),
}


Stop = Annotated[str, Field(max_length=1000)]  # after each token it is looked whether the reply ends in a part of one


class Part(BaseModel):
    """A piece of a turn."""

    type: Literal["text"]
    text: str


class Turn(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """What of OpenAI's request for a chat completion is done here."""

    model: str
    messages: Annotated[list[Turn], Field(min_length=1)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None

    @property
    def turns(self) -> list[dict[str, str]]:
        """The conversation as chat templates take it."""
        return [
            {
                "role": "system" if turn.role == "developer" else turn.role,
                "content": turn.content if isinstance(turn.content, str) else "".join(p.text for p in turn.content),
            }
            for turn in self.messages
        ]

    @property
    def stops(self) -> list[str]:
        return [one for one in ([self.stop] if isinstance(self.stop, str) else self.stop or []) if one]


class Refused(Exception):
    """What a request gets in place of a reply, in the shape of OpenAI's errors."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass
class Usage:
    """How a reply came to an end, and its tokens."""

    prompt: int = 0
    reply: int = 0
    reason: str = "stop"

    def counts(self) -> dict[str, int]:
        both = self.prompt + self.reply
        return {"prompt_tokens": self.prompt, "completion_tokens": self.reply, "total_tokens": both}


@dataclass
class Served:
    """A model in memory, which answers one request at a time."""

    name: str
    model: Any
    tokenizer: Any
    context: int | None
    turn: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, request: ChatRequest, hear: Callable[[str], None]) -> Usage:
        """Sample a reply, telling its text piece by piece. Raises Refused, and what `hear` raises."""
        try:
            prompt = token_ids(self.tokenizer, request.turns, generation=True)
        except BadInput as error:
            raise Refused(400, f"{error}.", param="messages") from None
        most = request.max_completion_tokens or request.max_tokens or NEW_TOKENS
        if self.context is not None:
            if len(prompt) >= self.context:
                said = f"These messages have {len(prompt)} tokens, and the model's context is {self.context}."
                raise Refused(400, said, param="messages", code="context_length_exceeded")
            most = min(most, self.context - len(prompt))
        usage, text = Usage(len(prompt), reason="length"), Text(self.tokenizer, request.stops, hear)

        def take(token: int) -> None:
            usage.reply += 1
            text.take(token)

        with self.turn:
            try:
                stream(
                    self.model,
                    self.tokenizer,
                    request.turns,
                    random.getrandbits(48) if request.seed is None else request.seed,
                    take,
                    max_new_tokens=most,
                    temperature=1.0 if request.temperature is None else request.temperature,
                    top_p=1.0 if request.top_p is None else request.top_p,
                )
            except Stopped:
                usage.reason = "stop"
        if usage.reply < most:
            usage.reason = "stop"
        text.finish()
        return usage


def run_serve(names: Sequence[str], host: str, port: int, key_env: str | None) -> None:
    """Load the models and serve them until SIGTERM or Ctrl-C. Raises BadInput before anything is loaded."""
    key = _key(key_env)
    names = [name.rstrip("/") or name for name in names]
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadInput(f"{twice[0]} is named twice; name each model once")
    sources = [find_model(name) for name in names]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    Server.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        server = Server((host, port), Handler)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput(f"cannot listen on {host} port {port} ({reason}); choose another --port or --host") from None
    with contextlib.suppress(KeyboardInterrupt), server:
        server.key = key
        for source in sources:
            tokenizer = load_tokenizer(source)
            model = load_causal_lm(source).to(device()).eval()
            server.models[source.name] = Served(source.name, model, tokenizer, context_length(load_config(source)))
            say(f"loaded {source.name}")
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{server.server_port}/v1"
        print(f"align serves {', '.join(server.models)} at {address} (Ctrl-C stops it)", flush=True)
        server.serve_forever()
    # A thread that is still in C++ would be unwound there when the interpreter ends, and abort the process.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _key(key_env: str | None) -> str | None:
    """The key that clients must send. Raises BadInput where the variable is empty."""
    if key_env is None:
        return None
    key = os.environ.get(key_env)
    if not key:
        raise BadInput(f"--api-key-env {key_env}: this environment variable is not set; put the key into it")
    if not key.isascii() or not key.isprintable() or key != key.strip():  # no header brings it as it is
        raise BadInput(f"--api-key-env {key_env}: a key is printable ASCII, with no space or line break at its ends")
    return key


class Server(ThreadingHTTPServer):
    """A thread for each connection. `key` is what clients must send, or None."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *where: Any) -> None:
        super().__init__(*where)
        self.models: dict[str, Served] = {}
        self.key: str | None = None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no error."""
        error = sys.exception()
        if not isinstance(error, OSError):
            say(f"a connection failed: {type(error).__name__}: {error}")


class Handler(BaseHTTPRequestHandler):
    """One connection. Each request is answered by a reply or by an error in OpenAI's shape."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "align", ""
    timeout = SILENCE

    def do_GET(self) -> None:
        with self._errors():
            self._may()
            if self.path.partition("?")[0] != "/v1/models":
                raise Refused(404, "There is nothing at this address.")
            listed = [{"id": name, "object": "model", "created": 0, "owned_by": "align"} for name in self.server.models]
            self._json(200, {"object": "list", "data": listed})

    def do_POST(self) -> None:
        with self._errors():
            body = self._body()  # first: what is not read would stand before the connection's next request
            self._may()
            if self.path.partition("?")[0] != "/v1/chat/completions":
                raise Refused(404, "There is nothing at this address.")
            request = _parsed(body, self.headers.get_content_type())
            served = self.server.models.get(request.model)
            if served is None:
                said = f"There is no model {request.model!r} here; there are {', '.join(self.server.models)}."
                raise Refused(404, said, param="model", code="model_not_found")
            (self._stream if request.stream else self._whole)(served, request)

    def _whole(self, served: Served, request: ChatRequest) -> None:
        pieces: list[str] = []
        usage = served.reply(request, pieces.append)
        message = {"role": "assistant", "content": "".join(pieces)}
        choice = {"index": 0, "message": message, "finish_reason": usage.reason, "logprobs": None}
        self._json(200, {**_head(served, "chat.completion"), "choices": [choice], "usage": usage.counts()})

    def _stream(self, served: Served, request: ChatRequest) -> None:
        head = _head(served, "chat.completion.chunk")

        def send(delta: dict[str, str], reason: str | None = None) -> None:
            self._event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

        def hear(piece: str) -> None:
            if not self.streaming:
                self._open_stream()
                send({"role": "assistant", "content": ""})
            send({"content": piece})

        usage = served.reply(request, hear)
        if not self.streaming:
            hear("")
        send({}, usage.reason)
        if request.stream_options and request.stream_options.include_usage:
            self._event({**head, "choices": [], "usage": usage.counts()})
        self.wfile.write(b"data: [DONE]\n\n")

    streaming = False

    def _open_stream(self) -> None:
        """The first piece is there, so it is no error; the end of the connection ends the stream."""
        self.streaming = self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()

    def _event(self, value: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")
        self.wfile.flush()

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 20) or int(length) > LONGEST_BODY:
            self.close_connection = True
            raise Refused(413, f"Send a body of at most {LONGEST_BODY} bytes, with its Content-Length.")
        return self.rfile.read(int(length))

    def _may(self) -> None:
        if self.server.key is None:
            return
        given = self.headers.get("Authorization", "")
        if not secrets.compare_digest(given.encode(), f"Bearer {self.server.key}".encode()):
            raise Refused(401, "The key is missing or wrong; send it as Authorization: Bearer.", code="invalid_api_key")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Answer with an error where one is raised; a client that has gone gets nothing."""
        import torch

        self.streaming = False
        try:
            yield
        except Refused as error:
            self._fail(error)
        except OSError:  # broken pipes and time-outs: nobody listens any more
            self.close_connection = True
        except torch.OutOfMemoryError:
            self._fail(Refused(503, "There is not enough memory for this request now.", code="out_of_memory"))
        except Exception as error:
            say(f"a request failed: {type(error).__name__}: {error}")
            self._fail(Refused(500, "The server made a mistake; what it was stands on its standard error."))

    def _fail(self, error: Refused) -> None:
        with contextlib.suppress(OSError):
            if self.streaming:
                self._event(error.body)  # without [DONE], so that nobody takes it for a whole reply
            else:
                self._json(error.status, error.body)

    def _json(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself refuses, in the same shape."""
        self.close_connection = True
        self._fail(Refused(code, f"{message or self.responses[code][0]}."))

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what goes wrong is said where it does."""


def _parsed(body: bytes, content_type: str) -> ChatRequest:
    """Raises Refused. JSON only: a browser asks before it sends that to another site, and is not let."""
    if content_type != "application/json":
        raise Refused(415, "Send JSON, with Content-Type: application/json.")
    try:
        value = json.loads(body)
        request = ChatRequest.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise Refused(400, f"{key or 'body'}: {first['msg']}.", param=key or None) from None
    except (ValueError, RecursionError):
        raise Refused(400, "This is not JSON.") from None
    for key, harmless in _NOT_DONE.items():
        if value.get(key) not in harmless:
            raise Refused(400, f"{key}: this server can't do that; leave it out.", param=key)
    return request


def _head(served: Served, kind: str) -> dict[str, Any]:
    name = f"chatcmpl-{secrets.token_hex(12)}"
    return {"id": name, "object": kind, "created": int(time.time()), "model": served.name}
