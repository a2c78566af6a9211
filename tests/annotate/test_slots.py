"""Leases of slots under every order of events, on a real database file."""

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from annotate.services.answers import Refused, submit
from annotate.services.assignment import LEASE_SECONDS, next_assignment, progress
from annotate.services.exchange import import_items
from annotate.services.people import add_person
from annotate.services.projects import create_project
from annotate.store.database import Database, open_database
from annotate.store.tables import Answer, Assignment, Member, Slot
from preferences import contract
from preferences.files import write_jsonl

OVERLAP, ITEMS, RATERS = 2, 3, 4


def small_project(folder: Path, items: int = ITEMS, overlap: int = OVERLAP, raters: int = RATERS) -> Database:
    database = open_database(str(folder / "a.db"), create=True)
    lines = [{"id": str(n), "prompt": f"prompt {n}", "responses": ["x", "y", "z"]} for n in range(items)]
    write_jsonl(folder / "items.jsonl", lines)
    with database.write() as session:
        project = create_project(
            session,
            "p",
            guidelines=None,
            overlap=overlap,
            strength=True,
            validation=0.1,
            test=0.1,
            simulated=False,
        )
        for number in range(raters):
            add_person(session, project, f"r{number}", role="rater", name=None, password="long enough")
        import_items(session, project, contract.read_items(folder / "items.jsonl"), folder / "items.jsonl")
    return database


def members(database: Database) -> list[Member]:
    with database.read() as session:
        return list(session.scalars(select(Member).order_by(Member.id)))


def answer(ranks: list[int]) -> contract.Answer:
    return contract.Answer(rater="x", ranks=ranks)


class Slots(RuleBasedStateMachine):
    """Raters ask, wait, answer, answer late and answer twice; a model says what each may hold."""

    @staticmethod
    @cache
    def template() -> Path:
        """A database file to copy, which is quicker than making one for every example."""
        folder = Path(tempfile.mkdtemp())
        small_project(folder).engine.dispose()
        return folder / "a.db"

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        shutil.copy(self.template(), self.folder.name)
        self.database = open_database(f"{self.folder.name}/a.db")
        self.members = members(self.database)
        self.now = 1000.0
        self.given: dict[int, tuple[int, int, list[int]]] = {}  # member -> (assignment, item, order) of the last lease
        self.leased: dict[int, float] = {}  # member -> when that lease ends
        self.answered: dict[tuple[int, int], str] = {}  # (member, item) -> kind

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.engine.dispose()
            self.folder.cleanup()

    @rule(rater=st.integers(0, RATERS - 1))
    def ask(self, rater: int) -> None:
        member = self.members[rater]
        with self.database.write() as session:
            found = next_assignment(session, member, now=self.now)
            done, total = progress(session, member, now=self.now)
        assert done == sum(who == member.id for who, _ in self.answered)
        assert (total > done) == (found is not None)
        before = self.given.get(member.id)
        if before is not None and (member.id, before[1]) not in self.answered and self.leased[member.id] > self.now:
            assert found is not None and found[0].id == before[0]  # what a rater holds comes back first
        if found is None:
            return
        assignment, item = found
        self.leased[member.id] = self.now + LEASE_SECONDS
        assert (member.id, item.id) not in self.answered
        assert sorted(assignment.shown) == [0, 1, 2]
        if before is not None and before[1] == item.id:  # the same item comes back as it was
            assert before == (assignment.id, item.id, assignment.shown)
        self.given[member.id] = (assignment.id, item.id, assignment.shown)

    @rule(seconds=st.sampled_from([1.0, LEASE_SECONDS / 2, LEASE_SECONDS + 1]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.given)
    @rule(data=st.data(), key=st.sampled_from(["key-one-1", "key-two-2"]))
    def submits(self, data: Any, key: str) -> None:
        member_id = data.draw(st.sampled_from(sorted(self.given)))
        assignment, item, _ = self.given[member_id]
        member = next(member for member in self.members if member.id == member_id)
        with self.database.write() as session:
            counted = select(func.count()).where(Answer.item_id == item, Answer.kind == "rated")
            before = session.scalar(counted)
            try:
                receipt = submit(session, member, assignment, answer([1, 2, 3]), key=key, guideline=None, now=self.now)
            except Refused:
                assert (member_id, item) in self.answered
                return
            after = session.scalar(counted)
        if (member_id, item) not in self.answered:
            self.answered[member_id, item] = "surplus" if receipt.surplus else "rated"
            assert after == before + (not receipt.surplus)
            assert not receipt.surplus or before == OVERLAP or self._others_lease(item, member_id) == OVERLAP - before
        else:
            assert after == before

    @rule(rater=st.integers(0, RATERS - 1))
    def answers_what_another_holds(self, rater: int) -> None:
        member = self.members[rater]
        for other, (assignment, _, _) in self.given.items():
            if other != member.id:
                with pytest.raises(Refused), self.database.write() as session:
                    submit(session, member, assignment, answer([1, 2, 3]), key="not-mine", guideline=None, now=self.now)

    def _others_lease(self, item: int, member_id: int) -> int:
        with self.database.read() as session:
            query = select(func.count()).select_from(Slot).join(Assignment).where(Slot.item_id == item)
            unanswered = ~select(Answer).where(Answer.slot_id == Slot.id).exists()
            query = query.where(Assignment.member_id != member_id, Slot.leased_until >= self.now, unanswered)
            return session.scalar(query) or 0

    @invariant()
    def never_more_than_wanted_and_nobody_twice(self) -> None:
        if not hasattr(self, "database"):
            return
        with self.database.read() as session:
            per_item = session.execute(
                select(Answer.item_id, func.count()).where(Answer.kind == "rated").group_by(Answer.item_id)
            ).all()
            rows = [(row.member_id, row.item_id, row.kind) for row in session.scalars(select(Answer))]
        assert all(count <= OVERLAP for _, count in per_item)
        assert {(member, item): kind for member, item, kind in rows} == self.answered and len(rows) == len(
            self.answered
        )


Slots.TestCase.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestSlots = Slots.TestCase


def test_a_lease_expires_and_the_late_answer_is_surplus(tmp_path: Path) -> None:
    database = small_project(tmp_path, items=1, overlap=1, raters=2)
    first, second = members(database)
    with database.write() as session:
        mine, _ = next_assignment(session, first, now=0.0) or pytest.fail()
        assert next_assignment(session, second, now=LEASE_SECONDS - 1) is None
        theirs, _ = next_assignment(session, second, now=LEASE_SECONDS + 1) or pytest.fail()
        assert not submit(session, second, theirs.id, answer([1, 2, 2]), key="second-key", guideline=None).surplus
        assert submit(session, first, mine.id, answer([2, 1, 1]), key="first-key1", guideline=None).surplus


def test_a_late_answer_takes_its_own_slot_while_nobody_else_has(tmp_path: Path) -> None:
    database = small_project(tmp_path, items=1, overlap=1, raters=1)
    (rater,) = members(database)
    with database.write() as session:
        first, _ = next_assignment(session, rater, now=0.0) or pytest.fail()
        again, _ = next_assignment(session, rater, now=2 * LEASE_SECONDS) or pytest.fail()
        assert (again.id, again.shown) == (first.id, first.shown)
        receipt = submit(
            session, rater, first.id, answer([1, 2, 3]), key="some-key", guideline=None, now=9 * LEASE_SECONDS
        )
    assert not receipt.surplus


def test_a_late_answer_takes_another_free_slot(tmp_path: Path) -> None:
    database = small_project(tmp_path, items=1, overlap=2, raters=2)
    first, second = members(database)
    with database.write() as session:
        mine, _ = next_assignment(session, first, now=0.0) or pytest.fail()
        next_assignment(session, second, now=LEASE_SECONDS + 1)  # takes the slot that ran out; the other one is free
        late = LEASE_SECONDS + 2
        receipt = submit(session, first, mine.id, answer([1, 2, 3]), key="some-key", guideline=None, now=late)
    assert not receipt.surplus


def test_what_a_rater_holds_comes_before_what_is_more_urgent(tmp_path: Path) -> None:
    database = small_project(tmp_path, items=2, overlap=1, raters=2)
    first, second = members(database)
    with database.write() as session:
        next_assignment(session, second, now=0.0)  # item 1
        mine, _ = next_assignment(session, first, now=LEASE_SECONDS - 1) or pytest.fail()  # item 2
        again, _ = next_assignment(session, first, now=LEASE_SECONDS + 1) or pytest.fail()  # item 1 is free again
        assert again.id == mine.id


def test_submitting_twice_stores_once(tmp_path: Path) -> None:
    database = small_project(tmp_path, items=1, overlap=2, raters=1)
    (rater,) = members(database)
    with database.write() as session:
        mine, _ = next_assignment(session, rater) or pytest.fail()
        first = submit(session, rater, mine.id, answer([1, 2, 3]), key="the-same", guideline=None)
        assert submit(session, rater, mine.id, answer([1, 2, 3]), key="the-same", guideline=None) == first
        with pytest.raises(Refused, match="answered this item already"):
            submit(session, rater, mine.id, answer([3, 2, 1]), key="another1", guideline=None)
        assert session.scalar(select(func.count()).select_from(Answer)) == 1


def test_the_database_itself_refuses(tmp_path: Path) -> None:
    database = small_project(tmp_path, items=1, overlap=1, raters=2)
    first, second = members(database)
    with database.write() as session:
        mine, item = next_assignment(session, first) or pytest.fail()
        submit(session, first, mine.id, answer([1, 2, 3]), key="the-same", guideline=None)
    for statement in ("UPDATE answers SET ranks = '[3]'", "DELETE FROM answers", "DELETE FROM audit"):
        with pytest.raises(IntegrityError, match="append-only"), database.write() as session:
            session.execute(text(statement))
    values = {"item_id": item.id, "ranks": [1, 2, 3], "flags": [], "kind": "rated"}
    with pytest.raises(IntegrityError, match="slot_id"), database.write() as session:
        session.add(Answer(**values, member_id=second.id, slot_id=1))
    with pytest.raises(IntegrityError, match="item_id"), database.write() as session:
        session.add(Answer(**{**values, "kind": "surplus"}, member_id=first.id))
