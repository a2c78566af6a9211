"""What is stored about one person comes out whole, and goes for good when they are erased."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event, func, select

from annotate.services import drafts
from annotate.services.answers import submit
from annotate.services.assignment import next_assignment
from annotate.services.exchange import import_items
from annotate.services.people import add_person
from annotate.services.privacy import erase, scrub
from annotate.services.projects import ProjectSettings, create_project
from annotate.store.database import open_database
from annotate.store.tables import Answer, Audit, Member, Person, Project
from preferences.contract import Answer as AnswerIn
from preferences.contract import read_items
from tests.annotate.conftest import PASSWORD, Annotate, Server, Visitor
from tests.annotate.people import invitation, people_of, rule

NAME, LOGIN, RATER = "Annamaria Quirrenbach", "anna.quirr", "worker-quirrenbach-7"
TEXTS = [f"{word}-{'quokka' * 4}" for word in ("rationale", "edited", "skip", "draft", "old-draft", "imported")]
ITEMS: list[dict[str, Any]] = [
    {"id": f"n{n}", "prompt": f"Number {n}? " + "Some words. " * 30, "responses": ["one", "two"]} for n in range(30)
]
GOLD = [{"id": f"g{n}", "prompt": f"Gold {n}?", "responses": ["right", "wrong"], "gold": [1, 2]} for n in range(3)]
IMPORTED = {
    "id": "old",
    "prompt": "Old?",
    "responses": ["a", "b"],
    "answers": [{"rater": RATER, "ranks": [1, 2], "rationale": TEXTS[5]}, {"rater": "w2", "ranks": [1, 2]}],
}


def make(annotate: Annotate) -> None:
    """Two projects, made in this process, which is several times faster than by commands."""
    annotate.write("items.jsonl", *ITEMS, *GOLD, IMPORTED)
    items = read_items(str(annotate.folder / "items.jsonl"))
    where = annotate.environment.get("ANNOTATE_DATABASE") or str(annotate.folder / "data/annotate.db")
    database = open_database(where, create=True)
    with database.write() as session:
        p, other = (
            create_project(session, name, guidelines=None, settings=ProjectSettings(edit=True))
            for name in ("p", "other")
        )
        import_items(session, p, items, "items.jsonl")
        add_person(session, p, LOGIN, role="rater", name=NAME, password=PASSWORD)
        add_person(session, p, "olga", role="owner", name=None, password=PASSWORD)
        add_person(session, other, "ben", role="rater", name=None, password=PASSWORD)
        add_person(session, p, "ben", role="rater", name=None, password=None)
    database.engine.dispose()


def rate(anna: Visitor, olga: Visitor) -> int:
    """Answer, skip and keep drafts, with text everywhere. Returns how many items were answered."""
    project = olga.http.get(olga.project)
    olga.http.patch(olga.project, json={"gold_rate": 0.5}, headers={"If-Match": project.headers["etag"]})
    for number in range(6):
        assignment = anna.next()["task"]["assignment"]
        address = f"{anna.project}/assignments/{assignment}/draft"
        assert anna.http.put(address, json={"body": {"why": TEXTS[4] + "x" * 900 * number}}).status_code == 200
        saved = anna.http.put(address, json={"body": {"why": TEXTS[0]}, "version": 1})
        assert saved.status_code == 200, saved.text
        extra: dict[str, Any] = {"rationale": TEXTS[0], "edited": {"response": 0, "text": TEXTS[1]}}
        assert anna.submit(assignment, [1, 2], key=f"key-{assignment:08}", **extra).status_code == 200
    skipped = anna.next()["task"]["assignment"]
    body = {"assignment": skipped, "reason": "other", "text": TEXTS[2]}
    following = anna.http.post(f"{anna.project}/skips", json=body).json()["task"]["assignment"]
    draft = anna.http.put(f"{anna.project}/assignments/{following}/draft", json={"body": {"why": TEXTS[3]}})
    assert draft.status_code == 200
    return 6


@pytest.fixture
def served(annotate: Annotate) -> Iterator[Server]:
    make(annotate)
    with annotate.served(api_only=True) as server:
        yield server


def counts(owner: Visitor) -> dict[str, Any]:
    report = owner.http.get(f"{owner.project}/report").json()
    return {key: report[key] for key in ("items", "answers", "raters", "slots", "flags", "agreement")}


def traces(folder: Path, *words: str) -> dict[str, list[str]]:
    """{word: the database's files that have it somewhere in their bytes}."""
    files = [path for path in (folder / "data").iterdir() if path.is_file()]
    assert files
    found = {word: [path.name for path in files if word.encode() in path.read_bytes()] for word in words}
    return {word: names for word, names in found.items() if names}


def test_all_that_is_stored_about_a_rater_comes_out(served: Server) -> None:
    anna, olga = served.visitor(LOGIN), served.visitor("olga")
    answered = rate(anna, olga)
    number = people_of(olga)[LOGIN]["id"]
    data = olga.http.get(f"{olga.project}/people/{number}/personal-data").json()
    own = anna.http.get("/api/v1/me/personal-data").json()
    assert data["format"] == 1 and data["identity"] == {"rater": LOGIN, "login": LOGIN, "name": NAME}
    (part,) = data["projects"]
    assert part["project"] == "p" and part["role"] == "rater" and part["pseudonym"].startswith("rater-")
    assert len(part["answers"]) == answered
    assert {(one["rationale"], one["edited"]["text"]) for one in part["answers"]} == {(TEXTS[0], TEXTS[1])}
    assert [one["text"] for one in part["skips"]] == [TEXTS[2]]
    assert [one["body"] for one in part["drafts"]] == [{"why": TEXTS[3]}]
    assert {one["action"] for one in part["audit"]} >= {"person added", "answered", "skipped"}
    account = data["account"]
    assert len(account["sessions"]) == 1 and set(account["sessions"][0]) == {"created_at", "expires_at"}
    # Nothing tells which items were checks, since owners hand this to raters; nothing secret is in it either.
    for text in (json.dumps(data), json.dumps(own)):
        assert "gold" not in text and "argon2" not in text and anna.http.cookies["concord_session"] not in text
    assert own["projects"][0]["answers"] == part["answers"]
    again = olga.http.get(f"{olga.project}/people/{number}/personal-data").json()
    assert again["projects"][0]["audit"][-1]["action"] == "personal data read"


def test_an_owner_gets_no_data_of_other_projects(served: Server) -> None:
    ben, olga = served.visitor("ben"), served.visitor("olga")
    number = people_of(olga)["ben"]["id"]
    data = olga.http.get(f"{olga.project}/people/{number}/personal-data").json()
    assert [part["project"] for part in data["projects"]] == ["p"] and data["account"] is None
    own = ben.http.get("/api/v1/me/personal-data").json()
    assert {part["project"] for part in own["projects"]} == {"p", "other"} and own["account"]["sessions"]


def test_an_erased_person_is_gone_from_the_files(annotate: Annotate) -> None:
    make(annotate)
    with annotate.served(api_only=True) as server:
        anna, olga = server.visitor(LOGIN), server.visitor("olga")
        rate(anna, olga)
        anna.http.post("/api/v1/me/tokens", json={"name": "mine", "rights": ["rate"]})
        httpx.post(server.url + "/login", data={"login": LOGIN, "password": "wrong"})
        before = people_of(olga)[LOGIN]
        assert set(traces(annotate.folder, NAME, LOGIN, *TEXTS[:5])) == {NAME, LOGIN, *TEXTS[:5]}
        report = counts(olga)
        erased = olga.http.delete(f"{olga.project}/people/{before['id']}/identity")
        assert erased.status_code == 200 and erased.json()["scrubbed"] is True
        assert traces(annotate.folder, NAME, LOGIN, before["pseudonym"], *TEXTS[:5]) == {}
        assert anna.http.get("/api/v1/me").status_code == 401
        gone = httpx.post(server.url + "/login", data={"login": LOGIN, "password": PASSWORD})
        assert gone.status_code == 401
        assert counts(olga) == report
        after = next(one for one in people_of(olga).values() if one["id"] == before["id"])
        assert after["rater"] == after["pseudonym"] == erased.json()["pseudonym"] != before["pseudonym"]
        assert (after["login"], after["name"], after["answers"]) == (None, None, before["answers"])
        assert after["removed_at"] is not None
        # Whoever comes next is somebody else, also by the number that the audit trail has.
        with sqlite3.connect(annotate.folder / "data/annotate.db") as connection:
            noted = [row[0] for row in connection.execute("SELECT DISTINCT person_id FROM audit") if row[0]]
        joined = httpx.post(server.url + invitation(olga), data={"login": "next", "password": PASSWORD})
        assert joined.status_code == 303
    with sqlite3.connect(annotate.folder / "data/annotate.db") as connection:
        (new,) = connection.execute("SELECT id FROM people WHERE login = 'next'").fetchone()
        assert noted and new not in noted
        for table in ("logins", "tokens"):
            rows = connection.execute(f"SELECT count(*) FROM {table} WHERE person_id NOT IN (SELECT id FROM people)")
            assert rows.fetchone() == (0,)
        entry = connection.execute("SELECT person_id, detail FROM audit WHERE action = 'erased'").fetchone()
        assert entry == (None, json.dumps({"of": before["id"]}))
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_gold_results_and_ranks_stay_as_they_were(annotate: Annotate) -> None:
    make(annotate)
    with annotate.served(api_only=True) as server:
        rate(server.visitor(LOGIN), server.visitor("olga"))
    before = annotate.json("report", "p")
    annotate.ok("export", "p", "before")
    annotate.ok("people", "erase", "p", LOGIN, "--yes")
    after = annotate.json("report", "p")
    annotate.ok("export", "p", "after")
    for key in ("items", "answers", "agreement", "slots", "flags", "raters"):
        assert before[key] == after[key]

    def facts(report: dict[str, Any]) -> list[Any]:
        return sorted(
            (one["answers"], one["paid"], one["skipped"], str(one["gold_accuracy"])) for one in report["people"]
        )

    assert facts(before) == facts(after)

    def answers(folder: str) -> tuple[list[Any], set[str]]:
        rows = annotate.rows(f"{folder}/rankings.jsonl")
        given = [(row["ranking"], sorted(str(one["ranks"]) for one in row["answers"])) for row in rows]
        return sorted(given), {one["rater"] for row in rows for one in row["answers"]}

    (ranks_before, raters_before), (ranks_after, raters_after) = answers("before"), answers("after")
    assert ranks_before == ranks_after
    assert len(raters_before - raters_after) == len(raters_after - raters_before) == 1


def test_a_rater_of_an_import_is_erased(annotate: Annotate) -> None:
    make(annotate)
    assert set(traces(annotate.folder, RATER, TEXTS[5])) == {RATER, TEXTS[5]}
    assert annotate.json("people", "erase", "p", RATER, "--yes")["scrubbed"] is True
    assert traces(annotate.folder, RATER, TEXTS[5]) == {}
    assert annotate.json("report", "p")["answers"] == 2
    assert "nobody in project" in annotate.refuses("people", "erase", "p", RATER, "--yes")


def test_a_part_in_another_project_stays_untouched(served: Server, annotate: Annotate) -> None:
    ben, olga = served.visitor("ben"), served.visitor("olga")
    number = people_of(olga)["ben"]["id"]
    assert rule(served.visitor(LOGIN).http.delete(f"{olga.project}/people/{number}/identity")) == (403, "forbidden")
    assert olga.http.delete(f"{olga.project}/people/{number}/identity").status_code == 200
    assert "ben" not in people_of(olga)
    assert [part["name"] for part in ben.http.get("/api/v1/me").json()["projects"]] == ["other"]
    assert {one["rater"] for one in annotate.json("people", "list", "other")["people"]} == {"ben"}
    # The other project's part goes when that one is erased, and the account with it.
    annotate.ok("people", "erase", "other", "ben", "--yes")
    assert ben.http.get("/api/v1/me").status_code == 401


def test_nothing_is_left_where_sqlite_does_not_overwrite(annotate: Annotate) -> None:
    """Most builds of SQLite leave what is deleted in the file, and drafts were deleted long before anybody erases."""
    make(annotate)
    database = open_database(str(annotate.folder / "data/annotate.db"))

    @event.listens_for(database.engine, "connect")
    def _as_most_builds(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA secure_delete=OFF")

    database.engine.dispose()
    with database.read() as session:
        project = session.query(Project).filter_by(name="p").one()
        raters = {
            name: session.query(Member).filter_by(rater=name, project_id=project.id).one() for name in (LOGIN, "ben")
        }
    for number in range(10):
        for name, rater in raters.items():
            text = (TEXTS[4] if name == LOGIN else "harmless") * (5 + 10 * number)
            with database.write() as session:
                given = next_assignment(session, rater, project)
                assert given is not None
                drafts.save(session, rater, given.assignment, {"why": text}, None)
            with database.write() as session:
                answer = AnswerIn(rater="-", ranks=[1, 2])
                submit(session, rater, project, given.assignment, answer, key=f"key-{number:06}", guideline=None)
    assert traces(annotate.folder, TEXTS[4])
    with database.write() as session:
        erase(session, project.id, raters[LOGIN].id, by=None)
    assert scrub(database) is True
    assert traces(annotate.folder, NAME, LOGIN, TEXTS[4]) == {}
    database.engine.dispose()


def test_erasing_on_postgresql(on_postgresql: Annotate) -> None:
    annotate = on_postgresql
    make(annotate)
    with annotate.served(api_only=True) as server:
        anna, olga = server.visitor(LOGIN), server.visitor("olga")
        answered = rate(anna, olga)
        number = people_of(olga)[LOGIN]["id"]
        erased = olga.http.delete(f"{olga.project}/people/{number}/identity").json()
        assert erased["scrubbed"] is False
        data = olga.http.get(f"{olga.project}/people/{number}/personal-data").text
        assert not any(text in data for text in (NAME, LOGIN, *TEXTS))
    database = open_database(annotate.environment["ANNOTATE_DATABASE"])
    with database.read() as session:
        assert session.scalar(select(func.count()).where(Person.login == LOGIN)) == 0
        assert session.scalar(select(func.count()).where(Answer.member_id == number)) == answered
        assert session.scalar(select(Audit.person_id).where(Audit.action == "erased")) is None
    database.engine.dispose()
