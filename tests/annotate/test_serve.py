"""The running server, asked as the page asks it: logins, who may do what, blindness, and answers that stay."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.annotate.conftest import PASSWORD, Annotate, Server, Visitor

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)> ![x](http://evil.example/x.png) [go](javascript:alert(1))"
)
ITEMS = [
    {
        "id": "by-gpt-x-and-llama-y",
        "prompt": "Which?",
        "responses": [{"text": HOSTILE, "model": "gpt-x", "id": "r1"}, {"text": "fine", "model": "llama-y"}],
        "tags": ["secret-tag"],
        "answers": [{"rater": "w1", "ranks": [2, 1], "rationale": "secret-rationale"}],
    },
    *({"id": f"n{n}", "prompt": f"Number {n}?", "responses": ["one", "two"]} for n in range(6)),
    {"id": "four", "prompt": "Four?", "responses": ["r0", "r1", "r2", "r3"], "priority": -1.0},
]


@pytest.fixture(scope="module")
def project(shared_annotate: Annotate) -> Annotate:
    annotate = shared_annotate
    (annotate.folder / "g.md").write_text("Be *fair*. <script>alert(1)</script>")
    annotate.ok("project", "create", "p", "--guidelines", "g.md", "--overlap", "2")
    annotate.ok("project", "create", "other")
    for login in ("anna", "ben", "cem", "dora"):
        annotate.person("p", login)
    annotate.person("p", "olga", "--role", "owner")
    annotate.person("other", "otto", "--role", "owner")
    annotate.write("items.jsonl", *ITEMS)
    annotate.ok("import", "p", "items.jsonl")
    return annotate


@pytest.fixture(scope="module")
def server(project: Annotate) -> Iterator[Server]:
    with project.served() as running:
        yield running


def read_guidelines(visitor: Visitor) -> None:
    assert visitor.http.post(f"{visitor.project}/guidelines/read", json={"version": 1}).status_code == 200


def test_nobody_and_a_wrong_password_hear_the_same(server: Server) -> None:
    said = []
    for login in ("anna", "nobody-at-all"):
        answer = httpx.post(server.url + "/login", data={"login": login, "password": "wrong wrong"})
        assert answer.status_code == 401 and "set-cookie" not in answer.headers
        said.append(answer.text.replace(login, "LOGIN"))
    assert said[0] == said[1] and "belong together" in said[0]


def test_ten_failures_have_to_wait(server: Server) -> None:
    for _ in range(10):
        assert httpx.post(server.url + "/login", data={"login": "dora", "password": "wrong"}).status_code == 401
    throttled = httpx.post(server.url + "/login", data={"login": "dora", "password": PASSWORD})
    assert throttled.status_code == 429 and "Wait 10 min" in throttled.text
    server.visitor("cem")  # others are not held up


def test_a_login_leads_only_to_pages_of_this_site(server: Server) -> None:
    for wanted, goes in (("/rate/?project=1", "/rate/?project=1"), ("https://evil.example", "/"), ("//evil", "/")):
        answer = httpx.post(server.url + "/login", data={"login": "cem", "password": PASSWORD, "next": wanted})
        assert answer.headers["location"] == goes
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie
    cross = httpx.post(
        server.url + "/login", data={"login": "cem", "password": PASSWORD}, headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert cross.status_code == 403


def test_the_database_keeps_no_token_and_no_password(server: Server, project: Annotate) -> None:
    token = server.visitor("cem").http.cookies["concord_session"]
    with sqlite3.connect(project.folder / "data/annotate.db") as connection:
        dump = "\n".join(connection.iterdump())
    assert token not in dump and PASSWORD not in dump


def test_who_may_see_what(server: Server) -> None:
    assert httpx.get(server.url + "/rate/").headers["location"] == "/login?next=/rate/"
    assert httpx.get(server.url + "/api/v1/me").status_code == 401
    assert httpx.get(server.url + "/rate/config").status_code == 401
    anna, olga, otto = (server.visitor(login) for login in ("anna", "olga", "otto"))
    for path in ("/owner/", "/owner/config", "/owner/gradio_api/info", f"{anna.project}/report"):
        assert anna.http.get(path).status_code == 403, path
    assert anna.http.post("/owner/gradio_api/queue/join", json={}).status_code == 403
    assert anna.http.post("/rate/gradio_api/upload", files={"files": b"x"}).status_code == 404
    assert olga.http.post("/owner/gradio_api/upload", files={"files": b"x"}).status_code == 404
    for visitor, page in ((anna, "rate"), (olga, "owner")):
        for file in ("data/annotate.db", "/etc/passwd", "items.jsonl"):
            assert visitor.http.get(f"/{page}/gradio_api/file={file}").status_code in (403, 404)
    assert olga.http.get("/owner/").status_code == 200 and olga.http.get("/rate/").status_code == 403
    assert olga.http.get(f"{olga.project}/report").json()["items"] == len(ITEMS)
    assert otto.http.get(f"{olga.project}/report").status_code == 403
    assert olga.http.post(f"{olga.project}/next", json={}).status_code == 403  # owners don't rate
    assert otto.http.post(f"{anna.project}/next", json={}).status_code == 403
    assert anna.http.get("/api/v1/projects/999/guidelines").status_code == 403


def test_posts_need_the_token(server: Server) -> None:
    anna = server.visitor("anna")
    del anna.http.headers["X-CSRF-Token"]
    answer = anna.http.post(f"{anna.project}/next", json={})
    assert answer.status_code == 403 and answer.json()["detail"] == "This page is out of date; reload it."


def test_signing_out_ends_the_session_on_the_server(server: Server) -> None:
    cem = server.visitor("cem")
    token = cem.http.cookies["concord_session"]
    assert cem.http.post("/logout").headers["location"] == "/login"
    assert httpx.get(server.url + "/api/v1/me", cookies={"concord_session": token}).status_code == 401


def test_guidelines_come_first(server: Server) -> None:
    anna = server.visitor("anna")
    guidelines = anna.http.get(f"{anna.project}/guidelines").json()
    assert guidelines["read"] is False and "<em>fair</em>" in guidelines["html"] and "<script" not in guidelines["html"]
    refused = anna.http.post(f"{anna.project}/next", json={})
    assert (refused.status_code, refused.json()["detail"]) == (409, "Read the guidelines first.")
    read_guidelines(anna)
    assert anna.http.get(f"{anna.project}/guidelines").json()["read"] is True


def test_raters_are_blind_and_text_is_harmless(server: Server) -> None:
    anna = server.visitor("anna")
    read_guidelines(anna)
    answer = anna.http.post(f"{anna.project}/next", json={})
    for secret in ("gpt-x", "llama-y", "secret-tag", "secret-rationale", '"r1"', "w1"):
        assert secret not in answer.text
    shown = " ".join(turn["html"] for turns in answer.json()["task"]["responses"] for turn in turns)
    assert "fine" in shown and "&lt;script&gt;" in shown
    assert "<script" not in shown and "<img" not in shown and 'href="javascript' not in shown
    assert anna.next()["task"] == answer.json()["task"]  # asked again: the same item in the same order


def test_a_check_looks_like_any_other_item(server: Server, project: Annotate) -> None:
    """Gold items are mixed in, and nothing that the page gets tells which ones they are."""
    project.ok("project", "create", "checked", "--practice", "0")
    project.person("checked", "cleo")
    pairs = [{"id": f"c{n}", "prompt": f"Checked {n}?", "responses": ["one", "two"]} for n in range(12)]
    project.write("checked.jsonl", *pairs, *({**pair, "id": pair["id"] + "g", "gold": [1, 2]} for pair in pairs))
    project.ok("import", "checked", "checked.jsonl")
    with sqlite3.connect(project.folder / "data/annotate.db") as connection:
        connection.execute("UPDATE projects SET gold_rate = 0.5 WHERE name = 'checked'")
    cleo = server.visitor("cleo")
    following, seen = cleo.next(), []
    while following["task"]:
        answer = cleo.submit(following["task"]["assignment"], [1, 2], key=f"key-{len(seen):06}")
        assert "gold" not in answer.text
        seen.append((sorted(following["task"]), following["progress"]["total"] % 10 == len(seen) % 10))
        assert answer.json()["receipt"]["feedback"] is None
        following = answer.json()["next"]
    assert len(seen) > 12 and len({str(one) for one in seen}) == 1


def test_headers(server: Server) -> None:
    for path in ("/login", "/static/rate/page.js", "/api/v1/me"):
        headers = httpx.get(server.url + path).headers
        assert "img-src 'self' data:" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"


def test_the_cookie_is_secure_over_https(server: Server) -> None:
    """Also behind a proxy on this machine, which says so in a header."""
    for headers, secure in (({"X-Forwarded-Proto": "https"}, True), ({}, False)):
        data = {"login": "cem", "password": PASSWORD}
        answer = httpx.post(server.url + "/login", data=data, headers=headers)
        assert ("Secure" in answer.headers["set-cookie"]) is secure


def test_no_other_site_may_read(server: Server) -> None:
    """Gradio's own CORS would let the pages of any site, or of another port of localhost, read the owner's page."""
    olga = server.visitor("olga")
    hosts = ({}, {"Host": "annotate.example"})
    for host in hosts:
        for origin in ("http://localhost:3000", "https://evil.annotate.example"):
            answer = olga.http.get("/owner/config", headers={"Origin": origin, **host})
            assert not [name for name in answer.headers if name.startswith("access-control-")], answer.headers
    assert httpx.get(server.url + "/rate", headers={"Host": "evil.example"}).headers["location"] == "/login?next=/rate"
    assert olga.http.get("/owner?x=1", headers={"Host": "evil.example"}).headers["location"] == "/owner/?x=1"


def test_what_is_too_long_or_too_big_is_refused(server: Server) -> None:
    anna = server.visitor("anna")
    url, json = f"{anna.project}/answers", {"Content-Type": "application/json"}
    for post in (anna.http.post, httpx.Client(base_url=server.url).post):  # signed in or not
        answer = post(url, content="x" * 1_500_000, headers=json)
        assert answer.status_code == 413 and "too long" in answer.json()["detail"]
    chunked = anna.http.post(url, content=(b"x" * 100_000 for _ in range(15)), headers=json)
    assert chunked.status_code == 413
    for number in (2**31, 2**63, 10**30, -1):
        assert anna.http.post(f"/api/v1/projects/{number}/next", json={}).status_code in (403, 422), number
        assert anna.submit(number, [1, 2]).status_code in (409, 422), number
    half = anna.http.post(url, content='{"assignment": 1, "key": "a key \\ud800", "ranks": [1, 2]}', headers=json)
    assert half.status_code == 422 and half.json()["detail"].startswith("key: "), half.text
    long = anna.submit(1, [1, 2], key="k" * 1000)
    assert long.json()["detail"] == "key: String should have at most 80 characters."


def test_who_is_no_rater_any_more_is_out_at_once(server: Server, project: Annotate) -> None:
    project.ok("project", "create", "left")
    project.person("left", "lea")
    lea = server.visitor("lea")
    assert lea.next()["task"] is None
    with sqlite3.connect(project.folder / "data/annotate.db") as connection:
        connection.execute("UPDATE members SET role = 'owner' WHERE rater = 'lea'")
    assert lea.http.post(f"{lea.project}/next", json={}).status_code == 403
    assert lea.http.get("/rate/").status_code == 403 and lea.http.get("/owner/").status_code == 200


def test_answers_with_a_wrong_shape_store_nothing(server: Server) -> None:
    anna, ben = server.visitor("anna"), server.visitor("ben")
    for visitor in (anna, ben):
        read_guidelines(visitor)
    task = anna.next()["task"]["assignment"]
    for ranks, strength, sentence in (
        ([1], None, "1 ranks for 2 responses"),
        ([1, 2, 3], None, "3 ranks for 2 responses"),
        ([2, 2], None, "best response must have rank 1"),
        ([1, 2], 2, "does not fit"),
    ):
        answer = anna.submit(task, ranks, strength=strength)
        assert answer.status_code == 422 and answer.json()["rule"] == "does-not-fit", answer.text
        assert sentence in answer.json()["detail"]
    for body in ({"ranks": [0, 1]}, {"ranks": ["a", "b"]}, {"ranks": [1, 2], "strength": 9}, {"ranks": [1, 2], "x": 1}):
        assert anna.submit(task, **body).status_code == 422
    assert ben.submit(task, [1, 2]).json()["detail"].startswith("This item was not given to you")
    assert ben.submit(10**6, [1, 2]).status_code == 409
    assert anna.next()["progress"]["done"] == 0


def test_an_answer_lands_in_import_order_and_once(server: Server, project: Annotate) -> None:
    """Ranks and the sign of strength are given as shown; the export has them in the order of the import."""
    ben = server.visitor("ben")
    read_guidelines(ben)
    following = ben.next()
    while following["task"]:
        task = following["task"]
        texts = [turns[0]["html"] for turns in task["responses"]]
        if len(texts) == 4:
            wanted = {"r0": 2, "r1": 1, "r2": 3, "r3": 3}
            ranks, strength = [wanted[text[3:5]] for text in texts], 3
        else:  # "two" is clearly better than "one", "fine" than the hostile one
            second = next(index for index, text in enumerate(texts) if "two" in text or "fine" in text)
            ranks, strength = ([1, 2], -2) if second == 0 else ([2, 1], 2)
        key = f"key-of-{task['assignment']}"
        first = ben.submit(task["assignment"], ranks, key=key, strength=strength, seconds=4.5).json()
        again = ben.submit(task["assignment"], ranks, key=key, strength=strength, seconds=4.5).json()
        assert again["receipt"] == first["receipt"] and again["next"] == first["next"]
        other = ben.submit(task["assignment"], [1] * len(ranks), key=key, strength=0)  # never said to be saved
        assert other.status_code == 409 and other.json()["rule"] == "key-reused"
        following = first["next"]
    assert following["progress"] == {"done": len(ITEMS), "total": len(ITEMS)}
    project.ok("export", "p", "out")
    pseudonym = next(p["pseudonym"] for p in project.json("report", "p")["people"] if p["rater"] == "ben")
    answers = {
        row["ranking"]: answer
        for row in project.rows("out/rankings.jsonl")
        for answer in row["answers"]
        if answer["rater"] == pseudonym
    }
    assert len(answers) == len(ITEMS)
    assert (answers["four"]["ranks"], answers["four"]["strength"]) == ([2, 1, 3, 3], 3)
    pairs = [answer for key, answer in answers.items() if key != "four"]
    assert all((answer["ranks"], answer["strength"]) == ([2, 1], 2) for answer in pairs)
    assert {tuple(answer["shown"]) for answer in pairs} <= {(0, 1), (1, 0)}
    assert all((answer["seconds"], answer["guideline"]) == (4.5, 1) for answer in answers.values())


def test_what_the_page_holds_is_still_to_do(server: Server, project: Annotate) -> None:
    """A page asks for the next item while the rater is at work on the last one: one is left, not none."""
    project.ok("project", "create", "held")
    project.person("held", "hana")
    project.write("held.jsonl", {**ITEMS[1], "id": "held-1"}, {**ITEMS[1], "id": "held-2", "prompt": "Held?"})
    project.ok("import", "held", "held.jsonl")
    hana = server.visitor("hana")
    first = hana.next()["task"]["assignment"]
    last = hana.next(first)["task"]["assignment"]
    assert last != first and hana.next(first, last) == {
        "task": None,
        "why": "nothing-left",
        "progress": {"done": 0, "total": 2},
    }
    assert hana.submit(first, [1, 2], holding=[last]).json()["next"]["progress"] == {"done": 1, "total": 2}
    assert hana.submit(last, [1, 2]).json()["next"]["progress"] == {"done": 2, "total": 2}


def test_raters_at_once_fill_each_slot_once(server: Server, project: Annotate) -> None:
    project.ok("project", "create", "busy", "--overlap", "2")
    raters = [f"r{number}" for number in range(4)]
    for login in raters:
        project.person("busy", login)
    project.write("busy.jsonl", *({**item, "id": f"busy-{item['id']}"} for item in ITEMS[1:7]))
    project.ok("import", "busy", "busy.jsonl")

    def rate_all(visitor: Visitor) -> int:
        following, done = visitor.next(), 0
        while following["task"]:
            answer = visitor.submit(following["task"]["assignment"], [1, 2])
            assert answer.status_code == 200 and not answer.json()["receipt"]["surplus"], answer.text
            following, done = answer.json()["next"], done + 1
        return done

    with ThreadPoolExecutor(len(raters)) as pool:
        assert sum(pool.map(rate_all, [server.visitor(login) for login in raters])) == 12
    with sqlite3.connect(project.folder / "data/annotate.db") as connection:
        rows = connection.execute(
            "SELECT count(*), count(DISTINCT member_id) FROM answers JOIN items ON items.id = item_id"
            " WHERE key LIKE 'busy-%' GROUP BY item_id"
        )
        assert rows.fetchall() == [(2, 2)] * 6


def test_a_killed_server_loses_no_acknowledged_answer(annotate: Annotate) -> None:
    annotate.ok("project", "create", "p")
    annotate.person("p", "anna")
    annotate.write("items.jsonl", *ITEMS[1:4])
    annotate.ok("import", "p", "items.jsonl")
    with annotate.served(api_only=True) as running:
        anna = running.visitor("anna")
        task = anna.next()["task"]
        assert anna.submit(task["assignment"], [1, 2], strength=-1).status_code == 200
        running.process.kill()
        running.process.wait()
    report = annotate.json("report", "p")
    assert (report["answers"], report["slots"]) == (1, {"all": 3, "filled": 1, "spared": 0})
