"""Attacks: on what Gradio brings and from other sites; and headers that browsers obey."""

import asyncio
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.datastructures import Headers
from starlette.types import Message

from annotate.app import build_app
from annotate.services.rights import MAY, Right
from annotate.store.database import open_database
from annotate.web.gate import PAGES, from_elsewhere
from tests.annotate.conftest import PASSWORD, Annotate, Server, Visitor

ROOT = Path(__file__).parents[2]
HASH = "the-hash-of-olgas-page"
INSIDERS = {"/rate": "anna", "/arena": "anna", "/owner": "olga", "/review": "rita"}


@pytest.fixture(scope="module")
def project(shared_annotate: Annotate) -> Annotate:
    annotate = shared_annotate
    for name, owner in (("p", "olga"), ("secret-project", "otto")):
        annotate.ok("project", "create", name)
        annotate.person(name, owner, "--role", "owner")
    annotate.person("p", "anna")
    annotate.person("p", "rita", "--role", "reviewer")
    annotate.person("p", "gone")
    pairs = [{"id": f"n{n}", "prompt": f"Number {n}?", "responses": ["one", "two"]} for n in range(3)]
    annotate.write("items.jsonl", *pairs)
    annotate.ok("import", "p", "items.jsonl")
    return annotate


@pytest.fixture(scope="module")
def server(project: Annotate) -> Iterator[Server]:
    with project.served() as running:
        yield running


# What Gradio 6.31 serves beside the page, and what a page of ours never asks for.
NOT_OURS = [
    *("GET /config", "GET /login_check", "GET /token", "GET /app_id", "GET /user", "GET /logout", "POST /login"),
    *("GET /gradio_api/info", "GET /gradio_api/openapi.json", "GET /gradio_api/startup-events", "GET /dev/reload"),
    *("POST /gradio_api/run/predict", "POST /gradio_api/queue/join", f"GET /gradio_api/queue/data?session_hash={HASH}"),
    *("POST /gradio_api/cancel", "POST /gradio_api/reset", f"GET /gradio_api/heartbeat/{HASH}"),
    *("POST /gradio_api/upload", "GET /gradio_api/upload_progress?upload_id=1", "POST /gradio_api/component_server"),
    *("GET /gradio_api/file=data/annotate.db", "GET /gradio_api/file=/etc/passwd", "GET /gradio_api/file/etc/passwd"),
    *("HEAD /gradio_api/file=/etc/passwd", "GET /gradio_api/proxy=https://a.example/"),
    *("POST /gradio_api/call/projects", "POST /gradio_api/api/predict", "POST /gradio_api/run/projects"),
    *("POST /gradio_api/call/v2/projects", "GET /gradio_api/call/projects/1", "GET /gradio_api/runs"),
    *("GET /monitoring", "GET /monitoring/summary", "GET /gradio_api/deep_link?session_hash=" + HASH),
    *("GET /manifest.json", "GET /pwa_icon", "GET /robots.txt", "GET /gradio_api/run-history/records"),
    *("POST /gradio_api/process_recording", "POST /gradio_api/vibe-edit", "GET /gradio_api/vibe-code"),
    *("GET /gradio_api/stream/a/1/2/playlist.m3u8", "POST /gradio_api/stream/a", "GET /svelte/a.js"),
    *("GET /gradio_api/custom_component/a/client/b/c", "GET /custom_component/a/client/b/c", "GET /any/thing"),
    *("GET /gradio_api/profiling/traces", "GET /gradio_api/login_check", "GET /theme.css/../config"),
]


@pytest.mark.parametrize("mount", INSIDERS)
@pytest.mark.parametrize("attack", NOT_OURS)
def test_what_gradio_brings_beside_the_page_is_closed(server: Server, signed_in: dict, mount: str, attack: str) -> None:
    """To its own people it is not there; to others the whole page is closed."""
    method, path = attack.split(" ")
    for login, visitor in signed_in.items():
        status = visitor.http.request(method, mount + path).status_code
        assert status == (404 if login == INSIDERS[mount] else 403), (login, status)
    assert httpx.request(method, server.url + mount + path).status_code == 401


@pytest.fixture(scope="module")
def signed_in(server: Server) -> dict[str, Visitor]:
    return {login: server.visitor(login) for login in set(INSIDERS.values())}


def test_the_page_and_its_files_are_for_its_people(server: Server, signed_in: dict[str, Visitor]) -> None:
    page = signed_in["olga"].http.get("/owner/")
    script = re.search(r'src="\.?(/?(?:owner/)?assets/[^"]+\.js)', page.text)
    assert script, page.text[:2000]
    path = "/owner/" + script.group(1).lstrip("/").removeprefix("owner/")
    for wanted, login in ((200, "olga"), (403, "anna")):
        assert signed_in[login].http.get(path).status_code == wanted
        assert signed_in[login].http.get("/owner/theme.css").status_code == wanted
    assert httpx.get(server.url + path).status_code == 401
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert signed_in["olga"].http.request(method, path).status_code == 405
        assert signed_in["olga"].http.request(method, "/owner/").status_code == 405
    for escape in (
        "/owner/assets/..%2f..%2f..%2fconfig",
        "/owner/assets/../../__init__.py",
        "/owner/static//etc/passwd",
    ):
        assert signed_in["olga"].http.get(escape).status_code in (403, 404, 405), escape


def test_no_page_has_an_event_or_a_word_of_anybodys_project(server: Server, signed_in: dict[str, Visitor]) -> None:
    """Gradio draws the same frame for everybody, and runs nothing of ours."""
    assert INSIDERS.keys() == PAGES.keys()
    for mount, login in INSIDERS.items():
        page = signed_in[login].http.get(f"{mount}/")
        found = re.search(r"window\.gradio_config\s*=\s*(\{.*?\});?\s*</script>", page.text, re.DOTALL)
        assert found, page.text[:2000]
        assert json.loads(found.group(1))["dependencies"] == []
    for login in ("olga", "otto"):
        page = server.visitor(login).http.get("/owner/")
        assert "secret-project" not in page.text and "Number 0?" not in page.text and "anna" not in page.text


def test_only_who_may_import_may_send_much(project: Annotate, signed_in: dict[str, Visitor]) -> None:
    """The long body of an import is not read from anybody else."""
    database = open_database(str(project.folder / "data/annotate.db"))
    app = build_app(database, pages=False)
    path = f"{signed_in['olga'].project}/items"

    def ask(visitor: Visitor | None) -> tuple[int, int]:
        """The status, and how many pieces of a body without end were read."""
        headers = {"Transfer-Encoding": "chunked"}
        if visitor:
            cookie = f"concord_session={visitor.http.cookies['concord_session']}"
            headers |= {"Cookie": cookie, "X-CSRF-Token": visitor.me["csrf_token"]}
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": raw}
        statuses, read = [], 0

        async def receive() -> Message:
            nonlocal read
            read += 1
            return {"type": "http.request", "body": b"x" * 1_000_000, "more_body": True}

        async def send(message: Message) -> None:
            statuses.append(message.get("status"))

        asyncio.run(app(scope, receive, send))
        return statuses[0], read

    assert ask(None) == (401, 0) and ask(signed_in["anna"]) == (403, 0)
    assert ask(signed_in["olga"]) == (413, 65)
    database.engine.dispose()
    olga = signed_in["olga"].http
    assert olga.post(path, content=b"x" * 2_000_000).json()["rule"] == "bad-input"


def test_who_is_removed_is_out_at_once(server: Server, project: Annotate) -> None:
    gone = server.visitor("gone")
    assert gone.http.get("/rate/").status_code == 200 and gone.next()["task"]
    with sqlite3.connect(project.folder / "data/annotate.db") as connection:
        connection.execute("UPDATE members SET removed_at = 1 WHERE rater = 'gone'")
    assert gone.http.get("/rate/").status_code == 403
    refused = gone.http.post(f"{gone.project}/next", json={})
    assert (refused.status_code, refused.json()["rule"]) == (403, "forbidden")


# --- other sites ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "elsewhere"),
    [
        ({}, False),  # a script, not a browser
        ({"Sec-Fetch-Site": "same-origin"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": "same-site"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Origin": "https://concord.example"}, False),
        ({"Origin": "http://CONCORD.example"}, False),
        ({"Origin": "https://concord.example:8443"}, True),
        ({"Origin": "https://evil.example"}, True),
        ({"Origin": "https://concord.example.evil.example"}, True),
        ({"Origin": "null"}, True),
        ({"Origin": ""}, True),
        # A proxy that gives another Host: browsers that say where a request comes from are believed.
        ({"Host": "127.0.0.1:7860", "Origin": "https://concord.example", "Sec-Fetch-Site": "same-origin"}, False),
    ],
)
def test_from_elsewhere(headers: dict[str, str], elsewhere: bool) -> None:
    assert from_elsewhere(Headers({"Host": "concord.example", **headers})) is elsewhere


def test_no_other_site_may_post(server: Server, signed_in: dict[str, Visitor]) -> None:
    """Not even with cookie and token, and not where no token is asked for."""
    anna = signed_in["anna"]
    before = anna.http.get(f"{anna.project}/answers/mine").json()
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"}):
        for path in (f"{anna.project}/next", "/login", "/logout", "/owner/", "/owner/gradio_api/run/predict"):
            answer = anna.http.post(path, json={}, headers=headers)
            assert (answer.status_code, answer.json()["rule"]) == (403, "cross-site"), path
    own = anna.http.post(
        f"{anna.project}/next", json={}, headers={"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
    )
    assert own.status_code == 200
    assert anna.http.get(f"{anna.project}/answers/mine").json() == before


def test_no_answer_lets_another_site_read(server: Server, signed_in: dict[str, Visitor]) -> None:
    asking = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    for path in ("/owner/", "/rate/", "/api/v1/me", "/login", "/static/rate/page.js", "/nothing", "/healthz"):
        for method in ("GET", "OPTIONS", "HEAD"):
            for visitor in signed_in.values():
                answer = visitor.http.request(method, path, headers=asking)
                assert not [name for name in answer.headers if name.startswith("access-control-")], (method, path)
                assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_redirects_name_no_host(server: Server, signed_in: dict[str, Visitor]) -> None:
    evil = {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
    nobody = httpx.Client(base_url=server.url)
    for visitor, path in (
        *((nobody, path) for path in ("/", "/rate", "/rate/", "/owner/?a=//evil.example", "/favicon.ico", "/static")),
        *((signed_in["olga"].http, path) for path in ("/", "/owner", "/owner?next=//evil.example")),
        *((signed_in["anna"].http, path) for path in ("/", "/rate", "/api/v1/me/", "/api/v1/projects/")),
    ):
        answer = visitor.get(path, headers=evil)
        if answer.is_redirect:
            assert re.match(r"/(?![/\\])", answer.headers["location"]), (path, answer.headers["location"])


@pytest.mark.parametrize(
    "wanted",
    [
        *("https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)"),
        *(
            "/\t/evil.example",
            "/\n//evil.example",
            "evil.example",
            "",
            "http:evil.example",
            "/%0d%0aSet-Cookie:a=b\r\n",
        ),
    ],
)
def test_a_login_leads_nowhere_else(server: Server, wanted: str) -> None:
    signed_in = httpx.post(server.url + "/login", data={"login": "anna", "password": PASSWORD, "next": wanted})
    assert signed_in.status_code == 303 and re.match(r"/(?![/\\])", signed_in.headers["location"])
    assert len(signed_in.headers.get_list("set-cookie")) == 1


# --- what browsers are told --------------------------------------------------------------------------------------


def policy(answer: httpx.Response) -> dict[str, str]:
    parts = answer.headers["content-security-policy"].split("; ")
    return {name: rest for name, _, rest in (part.partition(" ") for part in parts)}


def test_headers_of_every_answer(server: Server, signed_in: dict[str, Visitor]) -> None:
    drawn = ("/owner/", "/owner/theme.css", "/owner/config")
    plain = (
        "/login",
        "/",
        "/api/v1/me",
        "/api/v1/openapi.json",
        "/nothing",
        "/static/words.js",
        "/healthz",
        "/metrics",
    )
    for path in (*drawn, *plain):
        answer = signed_in["olga"].http.get(path)
        found, headers = policy(answer), answer.headers
        assert found["frame-ancestors"] == "'none'" and headers["x-frame-options"] == "DENY"
        assert found["object-src"] == "'none'" and found["form-action"] == "'self'"
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "same-origin"
        assert "server" not in headers and len(headers["x-request-id"]) == 16
        assert not re.search(r"https?:|\*", headers["content-security-policy"])  # nothing from elsewhere
        if path in plain:
            assert "unsafe" not in headers["content-security-policy"] and found["default-src"] == "'none'"
        if not path.startswith("/static/"):
            assert headers["cache-control"] == "no-store"


def test_the_cookie_stays_here(server: Server) -> None:
    for headers, secure in (({"X-Forwarded-Proto": "https"}, True), ({}, False)):
        answer = httpx.post(server.url + "/login", data={"login": "anna", "password": PASSWORD}, headers=headers)
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=lax" in cookie and "domain" not in cookie and "path=/" in cookie
        assert ("secure" in cookie) is secure


def test_a_query_string_is_no_password(server: Server) -> None:
    """What is in an address ends in histories and logs: no token is taken from there."""
    visitor = server.visitor("anna")
    token = visitor.http.cookies["concord_session"]
    for query in (f"concord_session={token}", f"token={token}", f"access_token={token}", f"__sign={token}"):
        assert httpx.get(f"{server.url}/api/v1/me?{query}").status_code == 401
        assert httpx.get(f"{server.url}/owner/theme.css?{query}").status_code == 401


# --- what the documentation says ---------------------------------------------------------------------------------


def test_the_table_of_rights_in_the_documentation_is_the_one_in_force() -> None:
    lines = (ROOT / "docs" / "security.md").read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| right |"))
    roles = [cell.strip() for cell in lines[start].strip("|").split("|")][1:]
    said: dict[str, set[str]] = {role: set() for role in roles}
    rows = 0
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        right, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows += 1
        for role, cell in zip(roles, cells, strict=True):
            assert cell in ("yes", "")
            if cell:
                said[role].add(right.split(" ")[0].strip("`"))
    assert rows == len(Right)
    assert said == {role: {right.value for right in rights} for role, rights in MAY.items()}


def test_every_test_that_the_documentation_names_is_there() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    there = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    named = set(re.findall(r"`(test_\w+)`", text))
    assert named and [name for name in sorted(named) if f"def {name}(" not in there] == []
