"""The same promises on a real PostgreSQL, where raters' transactions truly run at the same time."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError

from annotate.services import arena, assignment
from annotate.services.answers import Receipt, submit
from annotate.services.assignment import Given
from annotate.services.people import THROTTLE_FAILURES, Throttled, check_password
from annotate.services.privacy import erase
from annotate.services.projects import ProjectChange, change_project
from annotate.services.refit import refit
from annotate.services.refusals import Refused
from annotate.services.slots import open_all
from annotate.services.sure import lock_item, settle
from annotate.store.database import Database, DatabaseFailed, open_database
from annotate.store.tables import Answer, Assignment, Chat, Member, Project, Question, Slot
from preferences import contract
from tests.annotate.conftest import FOUR, PAIR, Annotate
from tests.annotate.house import House, item

ANSWERS = [
    {"rater": "w1", "ranks": [1, 2], "strength": -2, "seconds": 3.25},
    {"rater": "w2", "ranks": [2, 1], "strength": 1, "flags": ["odd"]},
    {"rater": "w3", "ranks": [1, 2], "edited": {"response": 0, "text": "It is four."}},
]


def many_raters(annotate: Annotate, items: int, overlap: int, raters: int) -> tuple[Database, list[Member]]:
    """A project with items of three responses, and members to rate them."""
    annotate.ok("project", "create", "p", "--overlap", str(overlap))
    annotate.write("items.jsonl", *({"id": n, "prompt": f"p {n}", "responses": ["x", "y", "z"]} for n in range(items)))
    annotate.ok("import", "p", "items.jsonl")
    database = open_database(annotate.environment["ANNOTATE_DATABASE"])
    with database.write() as session:
        made = [
            Member(project_id=1, rater=f"r{number}", role="rater", pseudonym=f"rater-{number}")
            for number in range(raters)
        ]
        session.add_all(made)
    return database, made


def ask(database: Database, member: Member) -> Given | None:
    with database.write() as session:
        return assignment.next_assignment(session, member, session.get_one(Project, 1))


def store(database: Database, member: Member, given: Given, key: str) -> Receipt:
    with database.write() as session:
        answer = contract.Answer(rater="x", ranks=[1, 2, 3])
        project = session.get_one(Project, 1)
        return submit(session, member, project, given.assignment, answer, key=key, guideline=None)


def rate_all(database: Database, member: Member) -> list[Receipt]:
    """Answer everything that one rater is given."""
    receipts = []
    while (found := ask(database, member)) is not None:
        receipts.append(store(database, member, found, f"key-{found.assignment:04}"))
    return receipts


def answers(database: Database) -> list[Answer]:
    with database.read() as session:
        return list(session.scalars(select(Answer)))


def at_once(work: Callable[[Any], Any], among: list[Any]) -> list[Any]:
    """Run `work` on each of `among` in a thread of its own, all starting together."""
    ready = threading.Barrier(len(among))

    def run(one: Any) -> Any:
        ready.wait()
        return work(one)

    with ThreadPoolExecutor(len(among)) as pool:
        return list(pool.map(run, among))


def test_the_command_from_project_to_report(on_postgresql: Annotate) -> None:
    annotate = on_postgresql
    annotate.ok("project", "create", "p")
    annotate.person("p", "anna")
    annotate.write("items.jsonl", {**PAIR, "answers": ANSWERS}, FOUR)
    assert annotate.json("import", "p", "items.jsonl")["answers"] == 3
    assert annotate.json("import", "p", "items.jsonl")["unchanged"] == 2
    report = annotate.json("report", "p")
    assert (report["items"], report["answers"], report["raters"]) == (2, 3, 3)
    assert {person["rater"] for person in report["people"]} == {"anna", "w1", "w2", "w3"}
    annotate.write("bad.jsonl", {**FOUR, "id": "new"}, {**PAIR, "prompt": "Another?"})
    assert "bad.jsonl, line 2" in annotate.refuses("import", "p", "bad.jsonl")
    annotate.write("nul.jsonl", {**FOUR, "id": "a\0b"})
    assert "NUL" in annotate.refuses("import", "p", "nul.jsonl")
    assert annotate.json("report", "p")["items"] == 2
    assert not (annotate.folder / "data").exists()


def test_the_same_export_as_from_sqlite_and_twice_the_same(on_postgresql: Annotate) -> None:
    annotate, url = on_postgresql, on_postgresql.environment["ANNOTATE_DATABASE"]
    rows = [{"id": n, "prompt": f"Question {n}?", "responses": ["a", "b"], "answers": ANSWERS} for n in range(12)]
    annotate.write(
        "items.jsonl", {**FOUR, "tags": ["ä", "🙂"], "answers": [{"rater": "w1", "ranks": [1, 2, 2, 4]}]}, *rows
    )
    for where in (url, "a.db"):
        annotate.ok("project", "create", "p", "--database", where)
        annotate.ok("import", "p", "items.jsonl", "--database", where)
        with open_database(where if where == url else str(annotate.folder / where)).write() as session:
            session.execute(text("UPDATE members SET pseudonym = 'rater-' || rater"))  # random, else
    annotate.ok("export", "p", "one", "--database", url)
    annotate.ok("export", "p", "two", "--database", url)
    annotate.ok("export", "p", "three", "--database", "a.db")
    for file in (annotate.folder / "one").iterdir():
        for other in ("two", "three"):
            assert file.read_bytes() == (annotate.folder / other / file.name).read_bytes(), (other, file.name)
    assert len(annotate.rows("one/rankings.jsonl")) == 13


def test_raters_at_once_fill_each_slot_once(on_postgresql: Annotate) -> None:
    database, raters = many_raters(on_postgresql, items=12, overlap=3, raters=6)

    receipts = [one for given in at_once(lambda member: rate_all(database, member), raters) for one in given]
    assert len(receipts) == 12 * 3 and not any(receipt.surplus for receipt in receipts)
    stored = answers(database)
    assert set(Counter(answer.item_id for answer in stored).values()) == {3}
    assert len({(answer.item_id, answer.member_id) for answer in stored}) == len(stored) == 36
    database.engine.dispose()


def test_leases_that_run_out_while_others_take_them(on_postgresql: Annotate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every lease is over at once, so that raters take each other's slots all the time: no answer may be lost."""
    monkeypatch.setattr(assignment, "LEASE_SECONDS", -1.0)
    database, raters = many_raters(on_postgresql, items=25, overlap=2, raters=6)

    given = sum(len(receipts) for receipts in at_once(lambda member: rate_all(database, member), raters))
    stored = answers(database)
    assert len(stored) == given
    assert len({(answer.item_id, answer.member_id) for answer in stored}) == given
    rated = Counter(answer.item_id for answer in stored if answer.kind == "rated")
    assert set(rated.values()) == {2} and len(rated) == 25
    database.engine.dispose()


def test_submitting_at_once_stores_once(on_postgresql: Annotate) -> None:
    database, (rater, *_) = many_raters(on_postgresql, items=2, overlap=1, raters=1)
    given = at_once(lambda _: ask(database, rater), [1, 2, 3, 4])  # four tabs
    assert len({one.assignment for one in given}) == 1
    receipts = at_once(lambda _: store(database, rater, given[0], "the-same-key"), [1, 2, 3, 4])
    assert len({receipt.answer for receipt in receipts}) == 1 and len(answers(database)) == 1
    with pytest.raises(Refused, match="answered this item"):
        store(database, rater, given[0], "another-key")
    database.engine.dispose()


def test_guessing_at_once_is_throttled_too(on_postgresql: Annotate) -> None:
    on_postgresql.ok("project", "create", "p")
    on_postgresql.person("p", "anna")
    database = open_database(on_postgresql.environment["ANNOTATE_DATABASE"])

    def guess(number: int) -> bool:
        try:
            return check_password(database, "anna", f"wrong {number}") is None
        except Throttled:
            return False

    assert sum(at_once(guess, list(range(25)))) == THROTTLE_FAILURES
    database.engine.dispose()


def test_the_database_itself_refuses(on_postgresql: Annotate) -> None:
    database, (first, second) = many_raters(on_postgresql, items=1, overlap=1, raters=2)
    mine = ask(database, first) or pytest.fail()
    store(database, first, mine, "the-same")
    for statement in (
        "UPDATE answers SET ranks = '[3]'",
        "DELETE FROM answers",
        "DELETE FROM audit",
        "TRUNCATE answers, answer_texts",
    ):
        with pytest.raises(DBAPIError, match="append-only"), database.write() as session:
            session.execute(text(statement))
    values = {"item_id": mine.item, "ranks": [1, 2, 3], "flags": [], "kind": "rated", "revision": 1}
    with pytest.raises(DBAPIError, match="slot_id"), database.write() as session:
        session.add(Answer(**values, member_id=second.id, slot_id=1))
    with pytest.raises(DBAPIError, match="item_id"), database.write() as session:
        session.add(Answer(**{**values, "kind": "surplus"}, member_id=first.id))
    database.engine.dispose()


def test_imports_and_exports_at_once(on_postgresql: Annotate) -> None:
    """The second import finds the first one's items; the second export keeps the first one's splits."""
    annotate = on_postgresql
    annotate.ok("project", "create", "p", "--test", "0.4")
    rows = [{"id": n, "prompt": f"Question {n}?", "responses": ["a", "b"], "answers": ANSWERS} for n in range(40)]
    annotate.write("items.jsonl", *rows)
    counts = at_once(lambda _: annotate.json("import", "p", "items.jsonl"), [1, 2])
    assert sorted(one["items"] for one in counts) == [0, 40]
    at_once(lambda folder: annotate.ok("export", "p", folder), ["one", "two"])
    assert annotate.rows("one/rankings.jsonl") == annotate.rows("two/rankings.jsonl")


def test_what_is_asked_while_its_asker_is_erased_is_not_kept(new_database: Callable[[], str]) -> None:
    house = House(new_database(), item("a"))
    task = house.ask("anna", "POST", "/next", {})["task"]
    with house.database.write() as session, ThreadPoolExecutor(1) as pool:
        anna = session.scalars(select(Member).where(Member.rater == "anna")).one()
        erase(session, house.project, anna.id, by=None)
        body = {"assignment": task["assignment"], "text": "Words of mine"}
        asked = pool.submit(house.ask, "anna", "POST", "/questions", body, 403)
        until_somebody_waits(house.database)
        session.commit()
        asked.result(30)
    with house.database.read() as session:
        assert session.query(Question).all() == []


def test_a_vote_and_a_change_of_the_project_take_turns(
    new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(new_database(), arena=["a", "b"])
    with house.database.write() as session:
        anna = session.scalars(select(Member).where(Member.rater == "anna")).one()
        chat = arena.open_chat(session, anna, session.get_one(Project, house.project), ["a", "b"], fresh=False)
        chat.turns = [{"user": "Hello", "replies": ["x", "y"]}]
    changed: list[Future[Any]] = []

    def while_it_votes(*given: Any, **more: Any) -> Chat:
        """The vote has its first locks; the change wants its own, and then the vote the rest."""
        if not changed:
            headers = house.headers["olga"] | {"If-Match": '"1"'}
            changed.append(pool.submit(house.client.patch, house.address, json={"qualify": 2}, headers=headers))
            until_somebody_waits(house.database)
        return chat_of(*given, **more)

    chat_of = arena.chat_of
    monkeypatch.setattr(arena, "chat_of", while_it_votes)
    with ThreadPoolExecutor(1) as pool:
        house.ask("anna", "POST", f"/chats/{chat.id}/vote", {"key": "a key of mine", "strength": -1})
    assert changed[0].result().status_code == 200


def until_somebody_waits(database: Database) -> None:
    """For a lock that another transaction has."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    ends = time.monotonic() + 20
    with database.engine.connect() as connection:
        while not connection.scalar(waiting):
            assert time.monotonic() < ends
            time.sleep(0.02)
            connection.rollback()


def test_items_are_given_out_while_they_are_all_opened_again(new_database: Callable[[], str]) -> None:
    """Nobody who has answered, and gets the next item in the same transaction, waits for who ends `sure`."""
    house = House(new_database(), item("q", [1, 2], [1, 2]), overlap=3, sure=0.9)
    refit(house.database, house.project)
    with house.database.write() as owner, house.database.write() as rater:
        assert owner.query(Slot).count() == 0
        open_all(owner, house.project)
        assert owner.query(Slot).count() == 3
        rater.execute(text("SET LOCAL lock_timeout = '2s'"))
        member = rater.scalars(select(Member.id).where(Member.rater == "anna")).one()
        given = {"item_id": 1, "member_id": member, "purpose": "item", "state": "open", "shown": [0, 1]}
        rater.execute(insert(Assignment).values(**given, created_at=0.0))


def test_an_answer_that_began_before_sure_ended_closes_nothing(new_database: Callable[[], str]) -> None:
    house = House(new_database(), item("q", [1, 2], [1, 2]), overlap=3, sure=0.9)
    with house.database.write() as rater:
        project = rater.get_one(Project, house.project)
        with house.database.write() as owner:
            change_project(owner, house.project, ProjectChange(sure=None), None, by=None)
            with pytest.raises(DatabaseFailed, match="lock timeout"), house.database.write() as other:
                other.execute(text("SET LOCAL lock_timeout = '100ms'"))
                lock_item(other, other.get_one(Project, house.project), 1)
        lock_item(rater, project, 1)
        settle(rater, project, 1, time.time())
        assert rater.query(Slot).count() == 3
