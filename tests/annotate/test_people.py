"""Who may come in, and what owners can do about people: over the API, by links, at the command line."""

import re
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.annotate.conftest import PASSWORD, Annotate, Server, Visitor
from tests.annotate.people import IMPORTED, ITEMS, invitation, join, patch, people_of, rule, server_with_people, until


@pytest.fixture(scope="module")
def server(shared_annotate: Annotate) -> Iterator[Server]:
    with server_with_people(shared_annotate) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest) -> Annotate:
    """The `annotate` command on an empty database of either kind."""
    return request.getfixturevalue("annotate" if request.param == "sqlite" else "on_postgresql")


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
    assert page.status_code == 200 and "Join “<bdi>p</bdi>”" in page.text and "a reviewer" in page.text
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
    assert "Join as <bdi>anna</bdi>" in page and "Choose a login" not in page
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
