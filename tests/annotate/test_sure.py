"""When an item is asked about no more, and in which order what is left is handed out."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from annotate.api import work
from annotate.services import refit as fits
from annotate.services import sure as service
from annotate.services.assignment import LEASE_SECONDS
from annotate.services.consensus import consensus_of
from annotate.services.exchange import import_items
from annotate.services.items import ItemChange, change_item
from annotate.services.projects import ProjectChange, change_project
from annotate.services.refit import refit
from annotate.store.database import Database
from annotate.store.tables import Answer, Assignment, Item, Member, Project, Slot
from preferences.contract import Item as Line
from preferences.stats.spend import certainty
from tests.annotate.house import House, item
from tests.annotate.test_slots import Small

A, B = [1, 2], [2, 1]


def pairs(count: int, **rest: Any) -> list[dict[str, Any]]:
    return [{"id": str(n), "prompt": f"prompt {n}", "responses": ["x", "y"], **rest} for n in range(count)]


def slots(small: Small, item_id: int) -> tuple[int, int]:
    """(all, filled)"""
    of_item = select(func.count()).where(Slot.item_id == item_id)
    return small.scalar(of_item), small.scalar(of_item.where(Slot.filled.is_(True)))


def give_and_answer(small: Small, rater: int, ranks: list[int], now: float = 1000.0) -> int:
    given = small.given(rater, now)
    in_import_order = ranks
    assert not small.submit(rater, given, in_import_order, now=now).surplus
    return given.item


def test_two_that_agree_are_enough_and_two_that_differ_are_not(tmp_path: Path) -> None:
    small = Small(tmp_path, pairs(2), raters=5, overlap=5, sure=0.9)
    assert [give_and_answer(small, 0, A) for _ in range(2)] == [1, 2]
    assert slots(small, 1) == (5, 1), "one is never enough"
    give_and_answer(small, 1, A)
    assert slots(small, 1) == (2, 2)
    give_and_answer(small, 1, B)
    assert slots(small, 2) == (5, 2)
    for rater, ranks in ((2, A), (3, B), (4, A)):
        assert give_and_answer(small, rater, ranks) == 2
    assert slots(small, 2) == (5, 5), "contested to the end, and no further"
    assert small.next(2) is None


def test_without_the_setting_nothing_is_taken_away(tmp_path: Path) -> None:
    small = Small(tmp_path, pairs(1), raters=3, overlap=3)
    for rater in range(3):
        give_and_answer(small, rater, A)
    assert slots(small, 1) == (3, 3)


def test_who_holds_a_slot_keeps_it_and_who_is_late_is_paid(tmp_path: Path) -> None:
    small = Small(tmp_path, pairs(1), raters=4, overlap=4, sure=0.9)
    late, holder = small.given(2, now=0.0), small.given(3, now=LEASE_SECONDS - 10)
    for rater in (0, 1):
        give_and_answer(small, rater, A, now=LEASE_SECONDS + 10)  # the first lease is over, the second one is not
    assert slots(small, 1) == (3, 2)
    assert not small.submit(3, holder, A, now=LEASE_SECONDS + 20).surplus
    assert small.submit(2, late, A, now=LEASE_SECONDS + 30).surplus
    assert slots(small, 1) == (3, 3)


def test_a_revision_that_makes_it_unsure_opens_the_item_again(tmp_path: Path) -> None:
    small = Small(tmp_path, pairs(1), raters=4, overlap=3, sure=0.9)
    give_and_answer(small, 0, A)
    given = small.given(1)
    receipt = small.submit(1, given, A)
    assert slots(small, 1) == (2, 2) and small.next(2) is None
    receipt = small.submit(1, given, B, key="other-key", revises=receipt.answer)
    assert slots(small, 1) == (3, 2)
    small.submit(1, given, A, key="third-key", revises=receipt.answer)
    assert slots(small, 1) == (2, 2)


def test_the_least_certain_comes_first_after_priority_and_old_ones_do_not_starve(tmp_path: Path) -> None:
    rows = [*pairs(3), {**pairs(4)[3], "priority": 1.0}]
    small = Small(tmp_path, rows, raters=4, overlap=4, sure=0.999)
    assert [give_and_answer(small, 0, A) for _ in range(3)] == [4, 1, 2]
    # The urgent one first; then the one that nobody has answered, then those with one answer in the order of import.
    assert [give_and_answer(small, 1, ranks) for ranks in (A, A, B, A)] == [4, 3, 1, 2]
    # Item 1 is contested, the other ones are not.
    assert [small.given(2, holding=[1000]).item for _ in range(1)] == [4]
    with small.database.write() as session:
        change = ItemChange(priority=0.0)
        change_item(session, 1, 4, change, session.get_one(Item, 4).version, by=small.raters[0])
    assert small.given(3).item == 1
    # However many are imported later: what is nearly sure waits for SPAN of them, and no longer.
    turns = {item: turn for item, turn in _turns(small)}
    assert turns[1] == 1.0 and turns[2] > turns[3] > 1000 and max(turns.values()) < 4 + service.SPAN


def _turns(small: Small) -> list[Any]:
    with small.database.read() as session:
        return session.execute(
            select(Slot.item_id, func.max(Slot.turn)).where(Slot.filled.is_(False)).group_by(Slot.item_id)
        ).all()


def test_a_decision_is_sure_and_a_higher_overlap_does_not_change_that(tmp_path: Path) -> None:
    house = House(tmp_path, item("q", A, B), overlap=3, sure=0.9)
    number = house.ask("rita", "GET", "/contested")["items"][0]["item"]
    assert house.ask("olga", "GET", f"/items/{number}")["slots"] == 3
    house.ask("rita", "PUT", f"/items/{number}/decision", {"ranks": [1, 2]})
    assert (house.ask("olga", "GET", f"/items/{number}"))["slots"] == 0
    version = house.ask("olga", "GET", f"/items/{number}")["version"]
    said = house.client.patch(
        f"{house.address}/items/{number}",
        json={"overlap": 5},
        headers={**house.headers["olga"], "If-Match": f'"{version}"'},
    ).json()
    assert (said["overlap"], said["slots"]) == (5, 0)


def test_progress_and_forecast_count_what_is_still_wanted(tmp_path: Path) -> None:
    house = House(tmp_path, *(item(f"q{n}") for n in range(3)), overlap=5, sure=0.9)
    for login in ("anna", "ben"):
        for _ in range(3):
            task = house.ask(login, "POST", "/next", {})["task"]
            with house.database.read() as session:
                shown = session.get_one(Assignment, task["assignment"]).shown
            body = {"assignment": task["assignment"], "key": f"key {task['assignment']:05}"}
            house.ask(login, "POST", "/answers", {**body, "ranks": [A[index] for index in shown]})
    report = house.ask("olga", "GET", "/report")
    assert report["slots"] == {"all": 6, "filled": 6, "spared": 9} and report["finish"]["left"] == 0
    assert house.ask("olga", "GET", "")["slots"] == 6
    assert "fewer answers" not in "".join(house.ask("olga", "GET", "/exports/preview")["warnings"])


def change(house: House, **values: Any) -> None:
    version = house.ask("olga", "GET", "")["version"]
    headers = {**house.headers["olga"], "If-Match": f'"{version}"'}
    assert house.client.patch(house.address, json=values, headers=headers).status_code == 200


def wanted(house: House) -> dict[str, int]:
    return {row["key"]: row["slots"] for row in house.ask("olga", "GET", "/items")["items"]}


def test_the_setting_holds_for_what_was_answered_before_and_goes_as_it_came(tmp_path: Path) -> None:
    rows = [item("alike", A, A, A), item("split", A, B), item("none"), item("gold", gold=A)]
    house = House(tmp_path, *rows, overlap=2)
    everything = {"alike": 2, "split": 2, "none": 2, "gold": 0}
    assert wanted(house) == everything
    change(house, sure=0.9)
    assert wanted(house) == {**everything, "alike": 0}
    change(house, sure=None)
    assert wanted(house) == everything
    with house.database.read() as session:
        assert all(slot.turn == slot.item_id for slot in session.scalars(select(Slot)))
    change(house, sure=0.9999)
    assert wanted(house) == everything
    change(house, sure=0.9)
    assert wanted(house) == {**everything, "alike": 0}


def test_who_turns_out_to_be_no_help_closes_nothing(tmp_path: Path) -> None:
    """w3 and w4 say anything: an item that looked sure by them opens again once that is known."""
    known = [item(f"q{n}", *([A if n % 2 else B] * 3)) for n in range(16)]
    for number, row in enumerate(known):
        row["answers"] += [{"rater": f"w{w}", "ranks": A if (number // w) % 2 else B} for w in (3, 4)]
    house = House(tmp_path, overlap=3, sure=0.9)
    doubtful = item("doubtful", A, A)
    doubtful["answers"] = [{**one, "rater": f"w{n}"} for n, one in zip((3, 4), doubtful["answers"], strict=True)]
    with house.database.write() as session:
        project = session.get_one(Project, house.project)
        import_items(session, project, [Line.model_validate(doubtful)], "items")
    refit(house.database, house.project)
    assert wanted(house)["doubtful"] == 0
    with house.database.write() as session:
        project = session.get_one(Project, house.project)
        import_items(session, project, [Line.model_validate(row) for row in known], "items")
    refit(house.database, house.project)
    assert wanted(house)["doubtful"] == 3
    with house.database.read() as session:
        trust = {one.rater: one.reliability for one in session.scalars(select(Member)) if one.reliability is not None}
    assert min(trust["w0"], trust["w1"]) > 0.8 and max(trust["w3"], trust["w4"]) < 0.6


def test_settings_are_checked(tmp_path: Path) -> None:
    for wrong in ({"sure": 0.5}, {"sure": 1.0}, {"hold_back": -0.1}, {"hold_back": 1.0}):
        with pytest.raises(ValueError, match=r"sure|hold_back"):
            ProjectChange(**wrong)
    small = Small(tmp_path, 1, raters=1)
    with small.database.write() as session:
        changed = change_project(session, 1, ProjectChange(sure=0.95, hold_back=0.5), None, by=None)
        assert (changed.sure, changed.hold_back) == (0.95, 0.5)


def test_what_is_said_while_a_fit_is_made_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fit knows nothing of a decision and of a vote that come meanwhile; what they settled holds."""
    house = House(tmp_path, item("decided", A, B), item("voted", A, A), overlap=4, sure=0.9)
    ids = {row["key"]: row["item"] for row in house.ask("rita", "GET", "/contested")["items"]}

    def meanwhile(*arguments: Any) -> Any:
        found = consensus_of(*arguments)
        house.ask("rita", "PUT", f"/items/{ids['decided']}/decision", {"ranks": [1, 2]})
        with house.database.write() as session:
            member = session.scalars(select(Member.id).where(Member.rater == "anna")).one()
            session.execute(
                insert(Answer).values(item_id=ids["voted"], member_id=member, kind="imported", ranks=B, flags=[])
            )
        return found

    monkeypatch.setattr(fits, "consensus_of", meanwhile)
    refit(house.database, house.project)
    assert wanted(house) == {"decided": 0, "voted": 4}


def test_a_fit_settles_a_few_items_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """… so that no answer waits for all of them."""
    house = House(tmp_path, *(item(f"q{n}", A, A, A) for n in range(7)), overlap=2, sure=0.9)
    monkeypatch.setattr(fits, "STEP", 3)
    steps: list[int] = []

    @contextmanager
    def counting() -> Iterator[Session]:
        before = set(wanted(house).items())
        with Database.write(house.database) as session:
            yield session
        steps.append(len(set(wanted(house).items()) - before))

    monkeypatch.setattr(house.database, "write", counting)
    refit(house.database, house.project)
    assert steps == [0, 3, 3, 1]
    assert set(wanted(house).values()) == {0}
    refit(house.database, house.project)
    assert steps == [0, 3, 3, 1, 0], "what is settled is left alone"


def test_a_fit_that_changes_little_leaves_turns_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(tmp_path, *(item(f"q{n}", A, B) for n in range(3)), item("q3", A, A), overlap=3, sure=0.9999)
    moved: list[int] = []

    def counting(_session: Session, number: int, *_rest: Any) -> None:
        moved.append(number)

    refit(house.database, house.project)
    monkeypatch.setattr(fits, "adjust", counting)
    for little in (1e-5, -1e-5, 0.01):
        monkeypatch.setattr(fits, "certainty", lambda one, little=little: certainty(one) + little)
        refit(house.database, house.project)
        assert moved == ([1, 2, 3, 4] if little > 0.001 else [])


def test_the_last_answers_before_a_pause_are_learnt_from_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path, *(item(f"q{n}") for n in range(3)), overlap=2, sure=0.9)
    fitted: list[int] = []
    monkeypatch.setattr(work, "refit", lambda _database, project: fitted.append(project))

    def somebody_comes(times: int, *, later: bool) -> None:
        if later:
            monkeypatch.setitem(fits._next, (house.database.name, house.project), 0.0)
        house.ask("anna", "POST", "/next", {})
        assert len(fitted) == times

    somebody_comes(0, later=True)
    house.rate("anna", 1)
    assert len(fitted) == 1
    house.rate("ben", 1)
    somebody_comes(1, later=False)
    somebody_comes(2, later=True)
    somebody_comes(2, later=True)
