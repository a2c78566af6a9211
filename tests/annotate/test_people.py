"""Who may come in, what owners can do about people, and what a person can do about their own account."""

import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from annotate.services.rights import Right
from tests.annotate.conftest import PASSWORD, Annotate, Server, Visitor

ITEMS = [{"id": f"n{n}", "prompt": f"Number {n}?", "responses": ["one", "two"]} for n in range(20)]
IMPORTED = {"id": "old", "prompt": "Old?", "responses": ["a", "b"], "answers": [{"rater": "w003", "ranks": [1, 2]}]}


@pytest.fixture(scope="module")
def server(shared_annotate: Annotate) -> Iterator[Server]:
    annotate = shared_annotate
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


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest) -> Annotate:
    """The `annotate` command on an empty database of either kind."""
    return request.getfixturevalue("annotate" if request.param == "sqlite" else "on_postgresql")


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


# --- what owners do ----------------------------------------------------------------------------------------------


def test_only_owners_see_who_people_are(server: Server) -> None:
    olga = server.visitor("olga")
    for login in ("anna", "rita", "otto"):
        visitor = server.visitor(login)
        for path in ("people", "people/1", "invitations", "people/1/personal-data"):
            assert rule(visitor.http.get(f"{olga.project}/{path}")) == (403, "forbidden"), (login, path)
        assert rule(visitor.http.post(f"{olga.project}/invitations", json={})) == (403, "forbidden")
        assert rule(visitor.http.delete(f"{olga.project}/people/1/identity")) == (403, "forbidden")
    everybody = people_of(olga)
    assert set(everybody) >= {"anna", "ben", "cem", "dora", "rita", "olga", "w003"}
    assert everybody["olga"]["name"] == "Olga Ö." and everybody["olga"]["role"] == "owner"
    assert everybody["w003"]["login"] is None and everybody["w003"]["answers"] == 1
    assert everybody["anna"]["pseudonym"].startswith("rater-")
    first = olga.http.get(f"{olga.project}/people", params={"limit": 2}).json()
    second = olga.http.get(f"{olga.project}/people", params={"limit": 2, "after": first["after"]}).json()
    assert len(first["people"]) == 2 and first["people"][-1]["id"] < second["people"][0]["id"]
    otto = server.visitor("otto")
    inside = everybody["anna"]["id"]
    assert rule(otto.http.get(f"{otto.project}/people/{inside}")) == (404, "not-found")  # of another project


def test_changing_a_person_takes_the_version_that_was_read(server: Server) -> None:
    olga = server.visitor("olga")
    cem = people_of(olga)["cem"]
    address = f"{olga.project}/people/{cem['id']}"
    assert rule(olga.http.patch(address, json={"skills": ["de"]})) == (428, "version-needed")
    changed = patch(olga, "cem", {"skills": ["de", "de", "en"], "qualified": True})
    assert changed.status_code == 200 and changed.json()["skills"] == ["de", "en"]
    assert changed.json()["qualified_at"] is not None and changed.headers["etag"] == f'"{changed.json()["version"]}"'
    assert rule(patch(olga, "cem", {"skills": []}, version=cem["version"])) == (412, "wrong-version")
    assert rule(patch(olga, "cem", {"role": "boss"})) == (422, "bad-input")
    assert rule(patch(olga, "w003", {"role": "owner"})) == (422, "bad-input")  # has no login


def test_who_is_removed_is_out_at_once(server: Server) -> None:
    olga, dora = server.visitor("olga"), server.visitor("dora")
    task = dora.next()["task"]
    assert patch(olga, "dora", {"removed": True}).json()["removed_at"] is not None
    assert rule(dora.submit(task["assignment"], [1, 2])) == (403, "forbidden")
    assert dora.http.get("/api/v1/me").json()["projects"] == []
    assert dora.http.get("/rate/").status_code == 403
    assert patch(olga, "dora", {"removed": False}).json()["removed_at"] is None
    assert dora.submit(task["assignment"], [1, 2]).status_code == 200


def test_a_removed_raters_items_are_free_at_once(annotate: Annotate) -> None:
    annotate.ok("project", "create", "p")
    annotate.write("items.jsonl", ITEMS[0])
    annotate.ok("import", "p", "items.jsonl")
    for login in ("anna", "ben"):
        annotate.person("p", login)
    annotate.person("p", "olga", "--role", "owner")
    with annotate.served(api_only=True) as server:
        anna, ben = server.visitor("anna"), server.visitor("ben")
        assert anna.next()["task"] and ben.next()["task"] is None
        assert patch(server.visitor("olga"), "anna", {"removed": True}).status_code == 200
        assert ben.next()["task"]


def test_a_new_role_counts_at_once(server: Server) -> None:
    olga, rita = server.visitor("olga"), server.visitor("rita")
    assert rita.http.get(f"{rita.project}/report").status_code == 200
    assert patch(olga, "rita", {"role": "rater"}).status_code == 200
    assert rule(rita.http.get(f"{rita.project}/report")) == (403, "forbidden")
    assert patch(olga, "rita", {"role": "reviewer"}).status_code == 200


def test_somebody_always_owns_a_project(server: Server) -> None:
    olga = server.visitor("olga")
    me = people_of(olga)["olga"]["id"]
    for change in ({"role": "rater"}, {"removed": True}):
        assert rule(patch(olga, "olga", change)) == (409, "last-owner")
    assert rule(olga.http.delete(f"{olga.project}/people/{me}/identity")) == (409, "last-owner")
    assert people_of(olga)["olga"]["role"] == "owner"


def test_two_owners_who_remove_each_other_leave_one(either: Annotate) -> None:
    either.ok("project", "create", "p")
    for login in ("olga", "otto"):
        either.person("p", login, "--role", "owner")
    with either.served(api_only=True) as server:
        owners = [server.visitor("olga"), server.visitor("otto")]
        for _ in range(5):
            ids = {name: (one["id"], one["version"]) for name, one in people_of(owners[0]).items()}
            start = threading.Barrier(2)

            def remove(owner: Visitor, other: str, ids: dict[str, Any] = ids, start: threading.Barrier = start) -> int:
                start.wait()
                number, version = ids[other]
                address = f"{owner.project}/people/{number}"
                body = {"role": "rater"}
                return owner.http.patch(address, json=body, headers={"If-Match": f'"{version}"'}).status_code

            with ThreadPoolExecutor(2) as pool:
                codes = list(pool.map(remove, owners, ["otto", "olga"]))
            assert sorted(codes) == [200, 403], codes
            winner = owners[codes.index(200)]
            loser = "otto" if winner is owners[0] else "olga"
            assert patch(winner, loser, {"role": "owner"}).status_code == 200


# --- links -------------------------------------------------------------------------------------------------------


def test_an_invitation_lets_one_person_in(server: Server, shared_annotate: Annotate) -> None:
    olga = server.visitor("olga")
    path = invitation(olga, role="reviewer", skills=["de"])
    page = httpx.get(server.url + path)
    assert page.status_code == 200 and "Join “p”" in page.text and "a reviewer" in page.text
    assert httpx.get(server.url + path).status_code == 200  # looking does not use it up
    joined = join(server, path, "fay", name="Fay <b>F.</b>")
    assert joined.status_code == 303 and "HttpOnly" in joined.headers["set-cookie"]
    fay = people_of(olga)["fay"]
    assert (fay["role"], fay["skills"], fay["name"]) == ("reviewer", ["de"], "Fay <b>F.</b>")
    assert server.visitor("fay").http.get(f"{olga.project}/report").status_code == 200
    for answer in (httpx.get(server.url + path), join(server, path, "gus")):
        assert answer.status_code == 410 and "works only once" in answer.text
    listed = olga.http.get(f"{olga.project}/invitations").json()["invitations"]
    assert listed[-1]["used_at"] is not None and "path" not in listed[-1]
    with sqlite3.connect(shared_annotate.folder / "data/annotate.db") as connection:
        dump = "\n".join(connection.iterdump())
    token = path.removeprefix("/join/")
    assert token not in dump and token.split(".")[0] not in dump


def test_what_is_wrong_with_a_link_is_said(server: Server) -> None:
    olga = server.visitor("olga")
    over = invitation(olga, expires_in_hours=0.0001)
    until(server, lambda: httpx.get(server.url + over).status_code == 410)
    assert "has expired" in httpx.get(server.url + over).text
    assert join(server, over, "hal").status_code == 410
    back = invitation(olga)
    number = olga.http.get(f"{olga.project}/invitations", params={"limit": 200}).json()["invitations"][-1]["id"]
    otto = server.visitor("otto")
    assert rule(otto.http.delete(f"{otto.project}/invitations/{number}")) == (404, "not-found")
    assert olga.http.delete(f"{olga.project}/invitations/{number}").status_code == 204
    assert join(server, back, "hal").status_code == 410
    good = invitation(olga)
    forged = good[:-1] + ("A" if good[-1] != "A" else "B")
    for path in (forged, "/join/x", "/join/x.y", good.replace("/join/", "/password/"), "/join/" + "z" * 500):
        for answer in (httpx.get(server.url + path), join(server, path, "hal")):
            assert answer.status_code == 404 and "no link of this server" in answer.text, path
    assert httpx.get(server.url + good).status_code == 200


def test_a_link_used_twice_at_once_lets_one_in(either: Annotate) -> None:
    either.ok("project", "create", "p")
    either.person("p", "olga", "--role", "owner")
    with either.served(api_only=True) as server:
        olga = server.visitor("olga")
        for round in range(4):
            path = invitation(olga)
            start = threading.Barrier(4)

            def enter(number: int, path: str = path, start: threading.Barrier = start, round: int = round) -> int:
                start.wait()
                return join(server, path, f"guest-{round}-{number}").status_code

            with ThreadPoolExecutor(4) as pool:
                assert sorted(pool.map(enter, range(4))) == [303, 410, 410, 410]
        assert len(people_of(olga)) == 5


def test_two_links_can_not_make_one_login(either: Annotate) -> None:
    either.ok("project", "create", "p")
    either.person("p", "olga", "--role", "owner")
    with either.served(api_only=True) as server:
        olga = server.visitor("olga")
        paths = [invitation(olga) for _ in range(3)]
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(lambda path: join(server, path, "same"), paths))
        assert sorted(answer.status_code for answer in answers) == [303, 422, 422]
        open_links = [path for path, answer in zip(paths, answers, strict=True) if answer.status_code == 422]
        assert all("This login is taken" in answer.text for answer in answers if answer.status_code == 422)
        assert [join(server, path, f"other-{n}").status_code for n, path in enumerate(open_links)] == [303, 303]


def test_a_login_that_does_not_fit_can_be_mended(server: Server) -> None:
    olga = server.visitor("olga")
    path = invitation(olga)
    wrong = {
        "anna": "This login is taken",
        "w003": "somebody called",  # the rater of an import is not there for the taking
        "two words": "without spaces",
        "boss@example.org": "without an @",
        '"><script>': "use 1 to 64 letters",
    }
    for login, words in wrong.items():
        answer = join(server, path, login)
        assert answer.status_code == 422 and words in answer.text and "<script>" not in answer.text, login
    short = httpx.post(server.url + path, data={"login": "ida", "password": "short"})
    assert short.status_code == 422 and "too short" in short.text and 'value="ida"' in short.text
    assert join(server, path, "ida").status_code == 303


def test_who_has_a_login_joins_with_it(server: Server) -> None:
    otto, anna = server.visitor("otto"), server.visitor("anna")
    path = invitation(otto)
    page = anna.http.get(path).text
    assert "Join as anna" in page and "Choose a login" not in page
    csrf = re.search(r'name="csrf" value="([^"]+)"', page)
    assert csrf is not None
    forged = anna.http.post(path, data={"csrf": "x" * 32})
    assert forged.status_code == 403 and "out of date" in forged.text
    elsewhere = anna.http.post(path, data={"csrf": csrf[1]}, headers={"Sec-Fetch-Site": "cross-site"})
    assert elsewhere.status_code == 403
    assert anna.http.post(path, data={"csrf": csrf[1]}).headers["location"] == "/"
    assert {one["name"] for one in anna.http.get("/api/v1/me").json()["projects"]} == {"p", "other"}
    second = invitation(otto)
    again = anna.http.post(second, data={"csrf": csrf[1]})
    assert again.status_code == 409 and "already" in again.text
    assert httpx.get(server.url + second).status_code == 200  # still good for somebody else
    assert patch(otto, "anna", {"removed": True}).status_code == 200
    removed = anna.http.post(second, data={"csrf": csrf[1]})
    assert removed.status_code == 403 and "removed from this project" in removed.text


def test_a_former_owner_keeps_no_open_link(annotate: Annotate) -> None:
    annotate.ok("project", "create", "p")
    for login in ("olga", "otto"):
        annotate.person("p", login, "--role", "owner")
    with annotate.served(api_only=True) as server:
        olga, otto = server.visitor("olga"), server.visitor("otto")
        path = invitation(otto, role="owner")
        assert patch(olga, "otto", {"role": "rater"}).status_code == 200
        assert join(server, path, "otto-again").status_code == 410


def test_links_are_signed_by_the_key_of_the_environment(annotate: Annotate) -> None:
    annotate.ok("project", "create", "p")
    annotate.environment["ANNOTATE_SECRET"] = "first " * 8
    link = annotate.json("people", "invite", "p", "--role", "owner", "--url", "https://rate.example/")["link"]
    assert link.startswith("https://rate.example/join/")
    path = link.removeprefix("https://rate.example")
    with annotate.served(api_only=True) as server:
        assert httpx.get(server.url + path).status_code == 200
    (annotate.folder / "key").write_text("second " * 8)
    del annotate.environment["ANNOTATE_SECRET"]
    annotate.environment["ANNOTATE_SECRET_FILE"] = "key"
    with annotate.served(api_only=True) as server:
        assert httpx.get(server.url + path).status_code == 404


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
    assert page.status_code == 200 and "rater in p" in page.text and "here" in page.text
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


# --- the audit trail and the commands ----------------------------------------------------------------------------


def test_the_audit_trail_says_what_happened_and_names_nobody(annotate: Annotate) -> None:
    annotate.ok("project", "create", "p")
    annotate.person("p", "olga", "--role", "owner", "--name", "Olga Nachname")
    with annotate.served(api_only=True) as server:
        olga = server.visitor("olga")
        assert join(server, invitation(olga), "fay", name="Fay Nachname").status_code == 303
        assert patch(olga, "fay", {"role": "reviewer", "skills": ["de"], "qualified": True}).status_code == 200
        assert patch(olga, "fay", {"removed": True}).status_code == 200
        number = people_of(olga)["fay"]["id"]
        olga.http.post(f"{olga.project}/people/{number}/password-link", json={})
        olga.http.put("/api/v1/me/password", json={"old": PASSWORD, "new": PASSWORD + "!"})
        made = olga.http.post("/api/v1/me/tokens", json={"name": "secret-name", "rights": ["review"]}).json()
        olga.http.delete(f"/api/v1/me/tokens/{made['id']}")
        olga.http.get(f"{olga.project}/people/{number}/personal-data")
        olga.http.delete(f"{olga.project}/people/{number}/identity")
    with sqlite3.connect(annotate.folder / "data/annotate.db") as connection:
        entries = connection.execute("SELECT action, detail FROM audit").fetchall()
    assert {action for action, _ in entries} >= {
        "person added",
        "invited",
        "joined",
        "role changed",
        "skills changed",
        "admitted",
        "removed",
        "password link made",
        "password changed",
        "token made",
        "token revoked",
        "personal data read",
        "erased",
    }
    details = " ".join(detail for _, detail in entries)
    for name in ("olga", "fay", "Nachname", "secret-name", "rater-"):
        assert name not in details


def test_people_at_the_command_line(annotate: Annotate, tmp_path: Path) -> None:
    annotate.ok("project", "create", "p")
    annotate.write("items.jsonl", IMPORTED)
    annotate.ok("import", "p", "items.jsonl")
    annotate.person("p", "olga", "--role", "owner", "--name", "O.")
    assert annotate.json("people", "add", "p", "rita", "--role", "reviewer")["password"]
    listed = annotate.json("people", "list", "p")["people"]
    assert {(one["rater"], one["role"], one["login"]) for one in listed} == {
        ("w003", "rater", None),
        ("olga", "owner", "olga"),
        ("rita", "reviewer", "rita"),
    }
    assert "w003" in annotate.ok("people", "list", "p") and "without a login" in annotate.ok("people", "list", "p")
    assert "Nobody else owns" in annotate.refuses("people", "role", "p", "olga", "rater")
    assert "Nobody else owns" in annotate.refuses("people", "erase", "p", "olga", "--yes")
    assert "nobody in project 'p' is called 'who'" in annotate.refuses("people", "remove", "p", "who")
    annotate.ok("people", "role", "p", "rita", "owner")
    annotate.ok("people", "remove", "p", "olga")
    assert "brings them back" in annotate.refuses("people", "add", "p", "olga")
    annotate.ok("people", "remove", "p", "olga", "--undo")
    assert "say --yes" in annotate.refuses("people", "erase", "p", "w003")
    erased = annotate.json("people", "erase", "p", "w003", "--yes")
    assert erased["scrubbed"] is True and "w003" not in annotate.ok("people", "list", "p")
    assert "can't come back" in annotate.refuses("people", "remove", "p", erased["pseudonym"], "--undo")
    annotate.ok("people", "password", "olga", "--password-file", "-", stdin="a new good one")
    assert "nobody has the login" in annotate.refuses("people", "password", "who")
    made = annotate.json("token", "create", "olga", "--name", "ci", "--right", "review", "--right", "export")
    assert made["token"].startswith("concord_") and made["rights"] == ["export", "review"]
    assert annotate.json("token", "list", "olga")["tokens"][0]["name"] == "ci"
    annotate.ok("token", "revoke", "olga", str(made["id"]))
    assert annotate.ok("token", "list", "olga") == "olga has no tokens\n"
    assert "You have no such token" in annotate.refuses("token", "revoke", "olga", "99")
    with annotate.served(api_only=True) as server:
        server.visitor("olga", "a new good one")
