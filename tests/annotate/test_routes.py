"""Every route × every role: the status that it answers with, that refusing changes nothing, and that doing is audited.

A route without a row fails `test_every_route_has_a_row`, which names it. Rows are (nobody, rater, reviewer, owner,
owner of another project, token): the token is of somebody who may, and carries only rights that don't matter here.
"""

import hashlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fastapi import FastAPI
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from annotate.api import limits
from annotate.app import build_app
from annotate.services.endpoints import Endpoint
from annotate.services.exchange import import_items
from annotate.services.links import invite, password_link
from annotate.services.people import add_person, start_login, visitor
from annotate.services.projects import ProjectSettings, create_project
from annotate.services.receivers import add_webhook
from annotate.services.rights import Right
from annotate.services.tokens import make_token
from annotate.store.access import Link, Login, Token
from annotate.store.database import open_database
from annotate.store.tables import Answer, Assignment, Chat, Member, Person
from annotate.web import plain
from preferences.contract import Item

ROLES = ("nobody", "rater", "reviewer", "owner", "other", "token")
Row = tuple[int, int, int, int, int, int]


def rates(status: int = 200) -> Row:
    return 401, status, 403, 403, 403, 403


def reviews(status: int = 200) -> Row:
    return 401, 403, status, status, 403, 403


def owns(status: int = 200) -> Row:
    return 401, 403, 403, status, 403, 403


def all_get(status: int) -> Row:
    return status, status, status, status, status, status


CONSENT = {"agreed": True, "consent_hash": hashlib.sha256(b"Agree?").hexdigest()}
RESPONSES = [{"text": "one", "model": "a"}, {"text": "two", "model": "b"}]
HOOK = {"url": "https://a.example/", "events": ["answer.stored"]}
P = "/api/v1/projects/{project_id}"
ROWS: dict[str, tuple[Row, Any]] = {  # method and path: (statuses, JSON body)
    "GET /api/v1/me": ((401, 200, 200, 200, 200, 200), None),
    "PUT /api/v1/me/language": ((401, 204, 204, 204, 204, 403), {"language": "de"}),
    "PUT /api/v1/me/password": ((401, 204, 204, 204, 204, 403), {"old": "long enough", "new": "long enough, too"}),
    "GET /api/v1/me/sessions": ((401, 200, 200, 200, 200, 403), None),
    "DELETE /api/v1/me/sessions/{session_id}": ((401, 404, 404, 204, 404, 403), None),
    "GET /api/v1/me/tokens": ((401, 200, 200, 200, 200, 403), None),
    "POST /api/v1/me/tokens": ((401, 201, 201, 201, 201, 403), {"name": "mine", "rights": ["review"]}),
    "DELETE /api/v1/me/tokens/{token_id}": ((401, 404, 404, 204, 404, 403), None),
    "GET /api/v1/me/personal-data": ((401, 200, 200, 200, 200, 403), None),
    "GET /api/v1/projects": ((401, 200, 200, 200, 200, 200), None),
    "POST /api/v1/projects": ((401, 403, 403, 201, 201, 403), {"name": "by {role}"}),
    "GET /api/v1/formats": ((401, 200, 200, 200, 200, 200), None),
    "POST /api/v1/projects/preview": ((401, 403, 403, 200, 200, 403), {"lines": "no item", "mask": ["Ada"]}),
    f"GET {P}": (reviews(), None),
    f"PATCH {P}": (owns(), {"overlap": 3}),
    f"POST {P}/guidelines": (owns(201), {"text": "Be fair."}),
    f"GET {P}/guidelines": (rates(), None),
    f"GET {P}/guidelines/{{version}}": (reviews(), None),
    f"POST {P}/guidelines/read": (rates(), {"version": 1}),
    f"POST {P}/consent": (rates(204), CONSENT),
    f"PUT {P}/opt-out": (rates(204), {"tags": ["sad"]}),
    f"GET {P}/report": (reviews(), None),
    f"GET {P}/agreement": (reviews(), None),
    f"GET {P}/items": (reviews(), None),
    f"POST {P}/items": (owns(), {"id": "new", "prompt": "New?", "responses": ["a", "b"]}),
    f"GET {P}/items/{{item_id}}": (reviews(), None),
    f"PATCH {P}/items/{{item_id}}": (owns(), {"priority": 2.0}),
    f"GET {P}/contested": (reviews(), None),
    f"GET {P}/items/{{item_id}}/decision": (reviews(), None),
    f"PUT {P}/items/{{item_id}}/decision": (reviews(), {"ranks": [1, 2], "strength": -1, "rationale": "Because."}),
    f"GET {P}/answers": (reviews(), None),
    f"GET {P}/exports/preview": (owns(), None),
    "POST /api/v1/exports": (owns(), {"projects": [1]}),
    "POST /api/v1/exports/judgements": (owns(), {"projects": [1]}),
    f"GET {P}/mine": (rates(), None),
    f"POST {P}/questions": (rates(201), {"assignment": "{assignment_id}", "text": "How is this meant?"}),
    f"GET {P}/questions/mine": (rates(), None),
    f"POST {P}/questions/read": (rates(204), None),
    f"GET {P}/questions": (reviews(), None),
    f"POST {P}/questions/{{question_id}}/reply": (owns(204), {"text": "As it says."}),
    f"POST {P}/next": (rates(), {}),
    f"POST {P}/answers": (rates(), {"assignment": "{assignment_id}", "key": "a new key", "ranks": [1, 2]}),
    f"GET {P}/answers/mine": (rates(), None),
    f"POST {P}/answers/{{answer_id}}/reopen": (rates(), None),
    f"POST {P}/skips": (rates(), {"assignment": "{assignment_id}", "reason": "broken"}),
    f"POST {P}/assignments/{{assignment_id}}/renew": (rates(), None),
    f"PUT {P}/assignments/{{assignment_id}}/draft": (rates(), {"body": {"why": "x"}, "version": 1}),
    f"GET {P}/assignments/{{assignment_id}}/draft": (rates(), None),
    f"POST {P}/chats": (rates(), {"fresh": True}),
    f"GET {P}/chats/{{chat_id}}": (rates(), None),
    f"POST {P}/chats/{{chat_id}}/turns": (rates(), {"turn": 1, "text": "And then?"}),
    f"POST {P}/chats/{{chat_id}}/stop": (rates(), None),
    f"POST {P}/chats/{{chat_id}}/vote": (rates(), {"key": "a new key", "strength": -1}),
    f"GET {P}/people": (owns(), None),
    f"GET {P}/people/{{member_id}}": (owns(), None),
    f"PATCH {P}/people/{{member_id}}": (owns(), {"removed": True}),
    f"POST {P}/people/{{member_id}}/password-link": (owns(201), {}),
    f"GET {P}/people/{{member_id}}/personal-data": (owns(), None),
    f"DELETE {P}/people/{{member_id}}/identity": (owns(), None),
    f"POST {P}/invitations": (owns(201), {"role": "rater"}),
    f"GET {P}/invitations": (owns(), None),
    f"DELETE {P}/invitations/{{invitation_id}}": (owns(204), None),
    f"GET {P}/webhooks": (owns(), None),
    f"POST {P}/webhooks": (owns(201), HOOK),
    f"DELETE {P}/webhooks/{{webhook_id}}": (owns(204), None),
    f"GET {P}/webhooks/{{webhook_id}}/deliveries": (owns(), None),
    # what is no API: pages and forms know no tokens
    "GET /": (all_get(303), None),
    "GET /login": (all_get(200), None),
    "POST /login": (all_get(401), None),
    "POST /logout": (all_get(303), None),
    "POST /language": (all_get(303), {"language": "de"}),
    "GET /login/openid": (all_get(404), None),  # no provider is set up
    "GET /login/openid/callback": (all_get(404), None),
    "GET /join/{join}": (all_get(200), None),
    "POST /join/{join}": (all_get(422), None),  # neither a login nor somebody's own form
    "GET /password/{password}": (all_get(200), None),
    "POST /password/{password}": (all_get(422), None),
    "GET /account": ((303, 200, 200, 200, 200, 303), None),
    "POST /account/password": ((401, 403, 403, 403, 403, 401), None),  # no form of their own
    "POST /account/sessions/end": ((401, 403, 403, 403, 403, 401), {"session": "1"}),
    "POST /account/tokens": ((401, 403, 403, 403, 403, 401), None),
    "POST /account/tokens/revoke": ((401, 403, 403, 403, 403, 401), {"token": "1"}),
    "GET /favicon.ico": (all_get(307), None),
    "GET /static/icon.svg": (all_get(200), None),
    "GET /static/languages/de.json": (all_get(200), None),
    "GET /api/v1/openapi.json": (all_get(200), None),
    "GET /healthz": (all_get(200), None),
    "GET /readyz": (all_get(200), None),
    "GET /metrics": (all_get(404), None),
}
PAGES: dict[str, Row] = {  # what Gradio draws; test_security.py has what else Gradio brings
    "GET /rate": (303, 307, 403, 403, 403, 303),
    "GET /rate/": (303, 200, 403, 403, 403, 303),
    "GET /rate/theme.css": (401, 200, 403, 403, 403, 401),
    "POST /rate/gradio_api/run/predict": (401, 404, 403, 403, 403, 401),
    "GET /arena": (303, 307, 403, 403, 403, 303),
    "GET /arena/": (303, 200, 403, 403, 403, 303),
    "GET /arena/theme.css": (401, 200, 403, 403, 403, 401),
    "POST /arena/gradio_api/run/predict": (401, 404, 403, 403, 403, 401),
    "GET /owner": (303, 403, 403, 307, 307, 303),
    "GET /owner/": (303, 403, 403, 200, 200, 303),
    "GET /owner/theme.css": (401, 403, 403, 200, 200, 401),
    "POST /owner/gradio_api/run/predict": (401, 403, 403, 404, 404, 401),
    "GET /review": (303, 403, 307, 403, 403, 303),
    "GET /review/": (303, 403, 200, 403, 403, 303),
    "GET /review/theme.css": (401, 403, 200, 403, 403, 401),
    "POST /review/gradio_api/run/predict": (401, 403, 404, 403, 403, 401),
}
# What is not written into the audit log: work that leads to an answer, which is, and what changes nothing.
NOT_AUDITED = {
    f"POST {P}/next",
    f"POST {P}/assignments/{{assignment_id}}/renew",
    f"PUT {P}/assignments/{{assignment_id}}/draft",
    f"POST {P}/answers/{{answer_id}}/reopen",  # only shows
    "POST /api/v1/projects/preview",  # only shows
    f"POST {P}/questions/read",
    f"POST {P}/chats/{{chat_id}}/stop",  # the turn is
}
AWAY = "http://127.0.0.1:1/v1/chat/completions"
MODELS = {name: Endpoint(name, AWAY, {}, None, None) for name in ("model-a", "model-b")}


class Scene(NamedTuple):
    """A database in which everything is there once, and how each role says who it is."""

    path: Path
    numbers: dict[str, str]  # of path parameters
    headers: dict[str, dict[str, str]]
    tokens: dict[str, dict[str, str]]  # by the right that the token lacks


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    path = tmp_path_factory.mktemp("routes") / "scene.db"
    database = open_database(str(path), create=True)
    logins = {"rater": "anna", "reviewer": "rita", "owner": "olga"}
    with database.write() as session:
        settings = ProjectSettings(consent="Agree?", warnings={"sad": "Sad."}, gold_rate=0.0, arena=[*MODELS])
        project = create_project(session, "p", guidelines="Be fair.", settings=settings)
        settings = ProjectSettings()
        elsewhere = create_project(session, "q", guidelines=None, settings=settings)
        people = {
            role: add_person(session, project, login, role=role, name=None, password="long enough")
            for role, login in logins.items()
        }
        ben = add_person(session, project, "ben", role="rater", name="Ben", password="long enough")
        people["other"] = add_person(session, elsewhere, "otto", role="owner", name=None, password="long enough")
        records = [
            Item.model_validate({"id": f"i{n}", "prompt": f"Number {n}?", "responses": RESPONSES}) for n in range(4)
        ]
        import_items(session, project, records, "items")
        headers: dict[str, dict[str, str]] = {"nobody": {}}
        for role, member in people.items():
            assert member.person_id is not None
            token = start_login(session, session.get_one(Person, member.person_id))
            session.flush()
            found = visitor(session, token)
            assert found is not None
            headers[role] = {"Cookie": f"concord_session={token}", "X-CSRF-Token": found.csrf_token}
        second = start_login(session, session.get_one(Person, people["owner"].person_id))
        assert second
        bearers = {}
        for name, role, right in (
            ("any", "owner", Right.EXPORT),
            ("export", "owner", Right.REVIEW),
            ("rate", "rater", Right.REVIEW),
        ):
            number = people[role].person_id
            assert number is not None
            _, bearer = make_token(session, number, name, [right], None)
            bearers[name] = {"Authorization": f"Bearer {bearer}"}
        turn = {"user": "Hello", "replies": ["One.", "Two."]}
        at = {"project_id": project.id, "member_id": people["rater"].id, "created_at": 1.0, "updated_at": 1.0}
        chat = Chat(**at, models=[*MODELS], turns=[turn])
        session.add(chat)
        hook = add_webhook(session, project.id, HOOK["url"], HOOK["events"], by=people["owner"])
        join = invite(session, project.id, role="rater", skills=[], hours=1.0, by=people["owner"])
        reset = password_link(session, project.id, people["rater"].id, hours=1.0, by=people["owner"])
        session.flush()
        numbers = {
            "project_id": project.id,
            "member_id": ben.id,
            "webhook_id": hook.id,
            "invitation_id": join.link.id,
            "token_id": session.query(Token).filter_by(person_id=people["owner"].person_id).first().id,
            "session_id": session.query(Login).filter_by(person_id=people["owner"].person_id).all()[-1].id,
            "item_id": 1,
            "chat_id": chat.id,
            "version": 1,
            "join": join.path.rsplit("/", 1)[1],
            "password": reset.path.rsplit("/", 1)[1],
        }
    with TestClient(build_app(database, pages=False)) as client:
        base = f"/api/v1/projects/{project.id}"

        def anna(method: str, path: str, body: dict[str, Any]) -> Any:
            answer = client.request(method, base + path, json=body, headers=headers["rater"])
            assert answer.status_code < 300, answer.text
            return answer.json() if answer.content else None

        anna("POST", "/consent", CONSENT)
        anna("POST", "/guidelines/read", {"version": 1})
        first = anna("POST", "/next", {})["task"]["assignment"]
        stored = anna("POST", "/answers", {"assignment": first, "key": "the first", "ranks": [1, 2]})
        numbers["answer_id"] = stored["receipt"]["answer"]
        numbers["assignment_id"] = stored["next"]["task"]["assignment"]
        asked = anna("POST", "/questions", {"assignment": first, "text": "What is meant?"})
        numbers["question_id"] = asked["question"]
        anna("PUT", f"/assignments/{numbers['assignment_id']}/draft", {"body": {"why": "y"}})
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.engine.dispose()
    return Scene(path, {name: str(value) for name, value in numbers.items()}, headers, bearers)


def says_who(scene: Scene, role: str, row: str) -> dict[str, str]:
    if role != "token":
        return scene.headers[role]
    if row in ROWS and ROWS[row][0] in (rates(), rates(201), rates(204)):
        return scene.tokens["rate"]
    return scene.tokens["export" if "/exports" in row else "any"]


def filled(value: Any, numbers: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: filled(one, numbers) for key, one in value.items()}
    if isinstance(value, str) and "{" in value:
        text = value.format_map(numbers)
        return int(text) if text.isdigit() else text
    return value


def state(path: Path) -> tuple[list[str], int]:
    """All rows but the time of a token's last use, and how many audit entries there are."""
    with sqlite3.connect(path) as connection:
        audit = connection.execute("SELECT count(*) FROM audit").fetchone()[0]
        changing = (
            'INSERT INTO "tokens"',
            'INSERT INTO "failed_logins"',
            "INSERT INTO sqlite_sequence",
            'INSERT INTO "sqlite_sequence',
        )
        return [line for line in connection.iterdump() if not line.startswith(changing)], audit


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits are tried elsewhere; here many requests come from one address."""
    monkeypatch.setattr(plain.FAILURES, "burst", 10_000)
    monkeypatch.setattr(limits.REQUESTS, "burst", 10_000)


@pytest.mark.parametrize("row", ROWS)
def test_who_may_do_what(row: str, scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    shutil.copy(scene.path, path)
    database = open_database(str(path))
    method, template = row.split(" ")
    statuses, body = ROWS[row]
    url = template.format_map(scene.numbers)
    got = {}
    with TestClient(build_app(database, pages=False, models=MODELS), follow_redirects=False) as client:
        for role in sorted(ROLES, key=lambda role: statuses[ROLES.index(role)] < 300):  # who is refused goes first
            before, audited = state(path)
            own = dict(says_who(scene, role, row))
            if template.startswith("/api/"):
                if method == "PATCH":
                    own["If-Match"] = '"1"'
                content: dict[str, Any] = {} if body is None else {"json": filled(body, scene.numbers | {"role": role})}
            else:
                content = {"data": body or {}} if method == "POST" else {}
            answer = client.request(method, url, headers=own, **content)
            got[role] = answer.status_code
            after, audits = state(path)
            if answer.status_code >= 400 or (method == "GET" and "personal-data" not in row):
                assert after == before, (role, "a refusal, or a look, changes nothing")
            if answer.status_code >= 400 and template.startswith("/api/"):
                problem = answer.json()
                assert answer.headers["content-type"] == "application/problem+json", answer.text
                assert problem["status"] == answer.status_code and problem["rule"] in problem["type"]
            if answer.status_code < 300 and method != "GET" and row not in NOT_AUDITED:
                assert audits > audited, (role, "what changes something is in the audit log")
    database.engine.dispose()
    assert got == dict(zip(ROLES, statuses, strict=True))


@pytest.fixture(scope="module")
def whole(scene: Scene) -> Iterator[tuple[FastAPI, TestClient]]:
    """The application with its pages."""
    database = open_database(str(scene.path))
    app = build_app(database)
    with TestClient(app, follow_redirects=False) as client:
        yield app, client
    database.engine.dispose()


@pytest.mark.parametrize("row", PAGES)
def test_who_may_see_what_page(row: str, scene: Scene, whole: tuple[FastAPI, TestClient]) -> None:
    method, path = row.split(" ")
    content: dict[str, Any] = {"json": []} if method == "POST" else {}
    got = {role: whole[1].request(method, path, headers=says_who(scene, role, row), **content) for role in ROLES}
    assert {role: answer.status_code for role, answer in got.items()} == dict(zip(ROLES, PAGES[row], strict=True))


def routes_of(app: FastAPI) -> set[str]:
    """Method and path of every route; of a mounted application only where it is."""
    found = set()
    routes = list(app.routes)
    while routes:
        route = routes.pop()
        if hasattr(route, "original_router"):  # FastAPI keeps routers that were included whole
            routes += route.original_router.routes
            continue
        if isinstance(route, Mount):
            found.add(f"MOUNT {route.path}")
        elif isinstance(route, Route):
            found |= {f"{method} {route.path}" for method in (route.methods or set()) - {"HEAD"}}
        else:
            raise AssertionError(f"what kind of route is {route!r}?")
    return found


def test_every_route_has_a_row(whole: tuple[FastAPI, TestClient]) -> None:
    app = whole[0]
    there = routes_of(app)
    document = app.openapi()["paths"]
    there |= {f"{method.upper()} {path}" for path, methods in document.items() for method in methods}
    said = {row.replace("{join}", "{token}").replace("{password}", "{token}") for row in ROWS}
    said = {row for row in said if not row.startswith("GET /static/")} | {"MOUNT /static", "MOUNT /static/languages"}
    said |= {f"MOUNT /{row.split('/')[1]}" for row in PAGES}
    missing, gone = sorted(there - said), sorted(said - there)
    assert not missing, f"no row in tests/annotate/test_routes.py for: {', '.join(missing)}"
    assert not gone, f"rows for routes that are not there: {', '.join(gone)}"
    assert ROWS.keys() >= NOT_AUDITED


def test_the_scene_has_what_rows_speak_of(scene: Scene) -> None:
    """So that a 403 is not a 404 in disguise."""
    with sqlite3.connect(scene.path) as connection:
        for table, column in (
            (Answer, "answer_id"),
            (Assignment, "assignment_id"),
            (Member, "member_id"),
            (Link, "invitation_id"),
            (Token, "token_id"),
            (Login, "session_id"),
        ):
            query = f"SELECT count(*) FROM {table.__tablename__} WHERE id = ?"
            assert connection.execute(query, [scene.numbers[column]]).fetchone() == (1,), column
