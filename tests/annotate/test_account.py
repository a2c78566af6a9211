"""Passwords, sessions, tokens, the account page, and signing in."""

import sqlite3
import time
from collections.abc import Iterator

import httpx
import pytest

from annotate.services.rights import Right
from tests.annotate.conftest import PASSWORD, Annotate, Server
from tests.annotate.people import invitation, join, people_of, rule, server_with_people


@pytest.fixture(scope="module")
def server(shared_annotate: Annotate) -> Iterator[Server]:
    with server_with_people(shared_annotate) as running:
        yield running


# --- passwords ---------------------------------------------------------------------------------------------------


def test_an_owner_lets_somebody_set_a_new_password(server: Server) -> None:
    olga = server.visitor("olga")
    assert join(server, invitation(olga), "kim").status_code == 303
    before = server.visitor("kim")
    address = f"{olga.project}/people/{people_of(olga)['kim']['id']}/password-link"
    first, second = (olga.http.post(address, json={}).json()["path"] for _ in range(2))
    assert httpx.get(server.url + first).status_code == 410  # the second one voids the first
    assert 'value="kim"' in httpx.get(server.url + second).text
    assert httpx.post(server.url + second, data={"password": "short"}).status_code == 422
    done = httpx.post(server.url + second, data={"password": "another good one"})
    assert done.status_code == 303 and "concord_session" in done.headers["set-cookie"]
    assert httpx.post(server.url + second, data={"password": "another good one"}).status_code == 410
    assert before.http.get("/api/v1/me").status_code == 401
    assert httpx.post(server.url + "/login", data={"login": "kim", "password": PASSWORD}).status_code == 401
    server.visitor("kim", "another good one")


def test_a_password_link_is_no_way_into_other_projects(server: Server) -> None:
    olga, otto = server.visitor("olga"), server.visitor("otto")
    for rater in ("ben", "w003"):
        number = people_of(olga)[rater]["id"]
        answer = olga.http.post(f"{olga.project}/people/{number}/password-link", json={})
        assert rule(answer) == {"ben": (409, "part-elsewhere"), "w003": (422, "bad-input")}[rater]
    assert join(server, invitation(olga), "lea").status_code == 303
    number = people_of(olga)["lea"]["id"]
    path = olga.http.post(f"{olga.project}/people/{number}/password-link", json={}).json()["path"]
    lea = server.visitor("lea")
    assert lea.http.post(invitation(otto), data={"csrf": lea.me["csrf_token"]}).status_code == 303
    assert httpx.post(server.url + path, data={"password": "stolen password"}).status_code == 410  # void from then on


def test_changing_ones_own_password_ends_the_other_sessions(server: Server) -> None:
    here, there = server.visitor("cem"), server.visitor("cem")
    new = "a new good one"
    wrong = here.http.put("/api/v1/me/password", json={"old": "not that", "new": new})
    assert rule(wrong) == (403, "forbidden")
    assert rule(here.http.put("/api/v1/me/password", json={"old": PASSWORD, "new": "short"})) == (422, "bad-input")
    assert here.http.put("/api/v1/me/password", json={"old": PASSWORD, "new": new}).status_code == 204
    assert here.http.get("/api/v1/me").status_code == 200 and there.http.get("/api/v1/me").status_code == 401
    assert here.http.put("/api/v1/me/password", json={"old": new, "new": PASSWORD}).status_code == 204


# --- one's own account -------------------------------------------------------------------------------------------


def test_sessions_can_be_seen_and_ended(server: Server) -> None:
    here, there = server.visitor("cem"), server.visitor("cem")
    sessions = here.http.get("/api/v1/me/sessions").json()["sessions"]
    assert [one["current"] for one in sessions][:2] == [False, True]  # the newest first
    anna = server.visitor("anna")
    assert rule(anna.http.delete(f"/api/v1/me/sessions/{sessions[0]['id']}")) == (404, "not-found")
    assert here.http.delete(f"/api/v1/me/sessions/{sessions[0]['id']}").status_code == 204
    assert there.http.get("/api/v1/me").status_code == 401


def test_a_token_carries_its_rights_and_no_more(server: Server, shared_annotate: Annotate) -> None:
    olga = server.visitor("olga")
    made = olga.http.post("/api/v1/me/tokens", json={"name": "a script", "rights": ["review"], "expires_in_days": 1})
    assert made.status_code == 201
    token, number = made.json()["token"], made.json()["id"]
    script = httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {token}"})
    assert script.get(f"{olga.project}/report").status_code == 200
    assert rule(script.get(f"{olga.project}/people")) == (403, "forbidden")
    for path in ("tokens", "sessions", "personal-data"):
        assert rule(script.get(f"/api/v1/me/{path}")) == (403, "forbidden")
    assert rule(script.post("/api/v1/me/tokens", json={"name": "x", "rights": ["manage"]})) == (403, "forbidden")
    assert rule(script.put("/api/v1/me/password", json={"old": PASSWORD, "new": PASSWORD})) == (403, "forbidden")
    listed = olga.http.get("/api/v1/me/tokens").json()["tokens"]
    assert listed[-1]["name"] == "a script" and listed[-1]["used_at"] is not None and "token" not in listed[-1]
    with sqlite3.connect(shared_annotate.folder / "data/annotate.db") as connection:
        assert token not in "\n".join(connection.iterdump())
    assert rule(server.visitor("anna").http.delete(f"/api/v1/me/tokens/{number}")) == (404, "not-found")
    assert olga.http.delete(f"/api/v1/me/tokens/{number}").status_code == 204
    assert rule(script.get(f"{olga.project}/report")) == (401, "signed-out")
    for body in ({"name": "x", "rights": []}, {"name": "", "rights": ["rate"]}, {"name": "x", "rights": ["all"]}):
        assert rule(olga.http.post("/api/v1/me/tokens", json=body)) == (422, "bad-input")


def test_a_token_never_outgrows_its_person(server: Server) -> None:
    anna = server.visitor("anna")
    made = anna.http.post("/api/v1/me/tokens", json={"name": "all", "rights": list(Right)}).json()
    script = httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {made['token']}"})
    assert rule(script.get(f"{anna.project}/report")) == (403, "forbidden")
    assert script.post(f"{anna.project}/next", json={}).status_code == 200


def test_the_account_page(server: Server) -> None:
    assert httpx.get(server.url + "/account").headers["location"] == "/login?next=/account"
    anna = server.visitor("anna")
    csrf = anna.me["csrf_token"]
    page = anna.http.get("/account")
    assert page.status_code == 200 and "rater in <bdi>p</bdi>" in page.text and "here" in page.text
    made = anna.http.post(
        "/account/tokens", data={"csrf": csrf, "name": "<i>mine</i>", "right": ["rate", "review"], "days": "3"}
    )
    assert "concord_" in made.text and "&lt;i&gt;mine" in made.text and "<i>" not in made.text
    assert "concord_" not in anna.http.get("/account").text
    number = anna.http.get("/api/v1/me/tokens").json()["tokens"][-1]["id"]
    for action, data in (
        ("tokens", {"name": "x", "right": "rate"}),
        ("tokens/revoke", {"token": str(number)}),
        ("sessions/end", {"session": "1"}),
        ("password", {"old": PASSWORD, "new": "another good one"}),
    ):
        for csrf_sent in ({}, {"csrf": "wrong"}):
            answer = anna.http.post(f"/account/{action}", data={**data, **csrf_sent})
            assert answer.status_code == 403 and "out of date" in answer.text, action
    assert "ive 1 to 100" in anna.http.post("/account/tokens", data={"csrf": csrf, "right": "rate"}).text
    assert anna.http.post("/account/tokens/revoke", data={"csrf": csrf, "token": str(number)}).status_code == 303
    assert (
        "old password is wrong"
        in anna.http.post("/account/password", data={"csrf": csrf, "old": "no", "new": "another good one"}).text
    )
    changed = anna.http.post("/account/password", data={"csrf": csrf, "old": PASSWORD, "new": PASSWORD})
    assert "signed out everywhere else" in changed.text


# --- signing in --------------------------------------------------------------------------------------------------


def test_signing_in_again_ends_the_session_before(server: Server) -> None:
    cem = server.visitor("cem")
    token = cem.http.cookies["concord_session"]
    answer = cem.http.post("/login", data={"login": "cem", "password": PASSWORD})
    assert answer.status_code == 303 and cem.http.cookies["concord_session"] != token
    assert httpx.get(server.url + "/api/v1/me", cookies={"concord_session": token}).status_code == 401


def test_cookies_are_secure_over_https(server: Server) -> None:
    proxied = {"X-Forwarded-Proto": "https"}
    answer = httpx.post(server.url + "/login", data={"login": "cem", "password": PASSWORD}, headers=proxied)
    cookie = answer.headers["set-cookie"]
    assert "Secure" in cookie and "HttpOnly" in cookie and "SameSite=lax" in cookie


def test_an_address_that_tries_many_logins_has_to_wait(annotate: Annotate) -> None:
    annotate.ok("project", "create", "p")
    annotate.person("p", "anna")
    with annotate.served(api_only=True) as server:

        def attempt(login: str, password: str, address: str = "192.0.2.1") -> int:
            data = {"login": login, "password": password}
            headers = {"X-Forwarded-For": address}
            return httpx.post(server.url + "/login", data=data, headers=headers, timeout=60).status_code

        for _ in range(3):
            assert attempt("anna", PASSWORD) == 303  # who signs in is not counted
        codes = [attempt("nobody", "wrong") for _ in range(60)]  # quick when that login has to wait
        assert codes == [401] * 10 + [429] * 50
        # Some time went by, which lets one or two more through, each for another login.
        assert 429 in [attempt(f"nobody-{n}", "wrong") for n in range(10)] and attempt("anna", PASSWORD) == 429
        assert attempt("anna", PASSWORD, "192.0.2.2") == 303
        for last in range(60):  # in IPv6 a subscriber has a whole network
            attempt("nobody", "wrong", f"2001:db8:1:2::{last:x}")
        assert 429 in [attempt(f"somebody-{n}", "wrong", f"2001:db8:1:2::f{n}") for n in range(10)]
        assert attempt("anna", PASSWORD, "2001:db8:1:3::1") == 303


def test_an_unknown_login_takes_as_long_as_a_wrong_password(server: Server) -> None:
    def seconds(login: str) -> float:
        began = time.perf_counter()
        httpx.post(server.url + "/login", data={"login": login, "password": "wrong wrong"})
        return time.perf_counter() - began

    known = sorted(seconds("rita") for _ in range(5))[2]
    unknown = sorted(seconds(f"nobody-{n}") for n in range(5))[2]
    assert 1 / 3 < known / unknown < 3
