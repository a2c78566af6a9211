"""A server with people on it, and what tests about people do with it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.annotate.conftest import PASSWORD, Annotate, Server, Visitor

ITEMS = [{"id": f"n{n}", "prompt": f"Number {n}?", "responses": ["one", "two"]} for n in range(20)]
IMPORTED = {"id": "old", "prompt": "Old?", "responses": ["a", "b"], "answers": [{"rater": "w003", "ranks": [1, 2]}]}


@contextmanager
def server_with_people(annotate: Annotate) -> Iterator[Server]:
    """Project p with raters, a reviewer, its owner olga and an imported rater; project other with otto and ben."""
    annotate.ok("project", "create", "p")
    annotate.ok("project", "create", "other")
    annotate.write("items.jsonl", *ITEMS, IMPORTED)
    annotate.ok("import", "p", "items.jsonl")
    for login in ("anna", "ben", "cem", "dora"):
        annotate.person("p", login)
    annotate.person("p", "rita", "--role", "reviewer")
    annotate.person("p", "olga", "--role", "owner", "--name", "Olga Ö.")
    annotate.person("other", "otto", "--role", "owner")
    annotate.ok("people", "add", "other", "ben")
    with annotate.served(api_only=True) as running:
        yield running


def people_of(owner: Visitor) -> dict[str, dict[str, Any]]:
    return {one["rater"]: one for one in owner.http.get(f"{owner.project}/people").json()["people"]}


def patch(owner: Visitor, rater: str, change: dict[str, Any], version: int | None = None) -> httpx.Response:
    found = people_of(owner)[rater]
    headers = {"If-Match": f'"{found["version"] if version is None else version}"'}
    return owner.http.patch(f"{owner.project}/people/{found['id']}", json=change, headers=headers)


def invitation(owner: Visitor, **body: Any) -> str:
    made = owner.http.post(f"{owner.project}/invitations", json=body)
    assert made.status_code == 201, made.text
    assert made.json()["url"].endswith(made.json()["path"])
    return made.json()["path"]


def join(server: Server, path: str, login: str, **more: str) -> httpx.Response:
    return httpx.post(server.url + path, data={"login": login, "password": PASSWORD, **more})


def rule(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["detail"].endswith(".") and "\n" not in body["detail"]
    return answer.status_code, body["rule"]


def until(server: Server, what: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.05)
