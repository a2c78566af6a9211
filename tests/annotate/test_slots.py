"""What raters are given and what becomes of their answers, case by case; test_state_machine.py has every order."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from annotate.services import drafts
from annotate.services.answers import UNDO_SECONDS, Receipt, reopen, submit
from annotate.services.assignment import LEASE_SECONDS, Given, next_assignment, renew, skip
from annotate.services.counted import counted
from annotate.services.exchange import import_items
from annotate.services.export import settle_splits
from annotate.services.gold import agreement_with_gold, is_correct
from annotate.services.items import ItemChange, change_item, item_of
from annotate.services.projects import ProjectChange, ProjectSettings, change_project, create_project
from annotate.services.questions import ask
from annotate.services.refusals import Refused
from annotate.services.webhooks import Event
from annotate.store.access import Delivery, Webhook
from annotate.store.database import Database, open_database
from annotate.store.tables import Answer, AnswerText, Audit, Item, Member, Project, Skip, Slot
from preferences import contract
from preferences.files import write_jsonl


class Small:
    """A small project on a database file of its own, with its raters."""

    def __init__(self, folder: Path, items: list[dict[str, Any]] | int, raters: int, **settings: Any) -> None:
        self.database: Database = open_database(str(folder / "a.db"), create=True)
        rows = [{"id": str(n), "prompt": f"prompt {n}"} for n in range(items)] if isinstance(items, int) else items
        write_jsonl(folder / "items.jsonl", [{"responses": ["x", "y", "z"], **row} for row in rows])
        with self.database.write() as session:
            project = create_project(session, "p", guidelines=None, settings=ProjectSettings(**settings))
            import_items(session, project, contract.read_items(folder / "items.jsonl"), folder / "items.jsonl")
            self.raters = [
                Member(project_id=1, rater=f"r{number}", role="rater", pseudonym=f"p{number}")
                for number in range(raters)
            ]
            session.add_all(self.raters)

    def next(self, rater: int, now: float = 1000.0, **rest: Any) -> Given | None:
        with self.database.write() as session:
            member = session.get_one(Member, self.raters[rater].id)
            return next_assignment(session, member, session.get_one(Project, 1), now=now, **rest)

    def given(self, rater: int, now: float = 1000.0, **rest: Any) -> Given:
        return self.next(rater, now, **rest) or pytest.fail("nothing was given")

    def submit(
        self, rater: int, given: Given, ranks: list[int], key: str = "some-key", now: float = 1000.0, **rest: Any
    ) -> Receipt:
        more = {name: rest.pop(name) for name in ("revises", "guideline") if name in rest}
        with self.database.write() as session:
            answer = contract.Answer(rater="x", ranks=ranks, **rest)
            member = session.get_one(Member, self.raters[rater].id)
            project = session.get_one(Project, 1)
            keyword = {"guideline": None, **more}
            return submit(session, member, project, given.assignment, answer, key=key, now=now, **keyword)

    def scalar(self, query: Any) -> Any:
        with self.database.read() as session:
            return session.scalar(query)


def test_a_lease_expires_and_the_late_answer_is_surplus(tmp_path: Path) -> None:
    small = Small(tmp_path, 1, raters=2)
    mine = small.given(0, now=0.0)
    assert small.next(1, now=LEASE_SECONDS - 1) is None
    theirs = small.given(1, now=LEASE_SECONDS + 1)
    with small.database.write() as session, pytest.raises(Refused) as refusal:
        renew(session, small.raters[0], mine.assignment, now=LEASE_SECONDS + 2)
    assert refusal.value.rule == "assignment-expired"
    assert not small.submit(1, theirs, [1, 2, 2]).surplus
    assert small.submit(0, mine, [2, 1, 1]).surplus


def test_a_lease_that_is_renewed_does_not_expire(tmp_path: Path) -> None:
    small = Small(tmp_path, 1, raters=2)
    mine = small.given(0, now=0.0)
    for hour in range(1, 4):
        now = hour * (LEASE_SECONDS - 1)
        with small.database.write() as session:
            if hour % 2:
                renew(session, small.raters[0], mine.assignment, now=now)
            else:
                drafts.save(session, small.raters[0], mine.assignment, {"ranks": [1]}, None, now=now)
        assert small.next(1, now=now + LEASE_SECONDS / 2) is None


def test_a_late_answer_takes_its_own_slot_while_nobody_else_has(tmp_path: Path) -> None:
    small = Small(tmp_path, 1, raters=1)
    first = small.given(0, now=0.0)
    assert small.given(0, now=2 * LEASE_SECONDS) == first  # the same item in the same order
    assert not small.submit(0, first, [1, 2, 3], now=9 * LEASE_SECONDS).surplus


def test_a_late_answer_takes_another_free_slot(tmp_path: Path) -> None:
    small = Small(tmp_path, 1, raters=2, overlap=2)
    mine = small.given(0, now=0.0)
    small.given(1, now=LEASE_SECONDS + 1)  # takes the slot that ran out; the other one is free
    assert not small.submit(0, mine, [1, 2, 3], now=LEASE_SECONDS + 2).surplus


def test_what_a_rater_holds_comes_before_what_is_more_urgent(tmp_path: Path) -> None:
    small = Small(tmp_path, 2, raters=2)
    small.given(1, now=0.0)  # item 1
    mine = small.given(0, now=LEASE_SECONDS - 1)  # item 2
    assert small.given(0, now=LEASE_SECONDS + 1) == mine  # item 1 is free again


def test_a_page_may_fetch_the_next_item_while_it_holds_one(tmp_path: Path) -> None:
    small = Small(tmp_path, 3, raters=1)
    first = small.given(0)
    second = small.given(0, holding=[first.assignment])
    assert second.item != first.item
    assert small.given(0, holding=[first.assignment]) == second  # asked again, it is the same
    assert small.given(0) == first


def test_a_rater_with_two_slots_free_keeps_their_own(tmp_path: Path) -> None:
    small = Small(tmp_path, 1, raters=2, overlap=2)
    other, mine = small.given(1), small.given(0)
    with small.database.write() as session:
        skip(session, small.raters[1], other.assignment, "broken", None)
    assert small.given(0) == mine


def test_submitting_twice_stores_once(tmp_path: Path) -> None:
    small = Small(tmp_path, 1, raters=1, overlap=2)
    mine = small.given(0)
    first = small.submit(0, mine, [1, 2, 3], key="the-same", rationale="because")
    assert small.submit(0, mine, [1, 2, 3], key="the-same", rationale="because", now=1001.0) == first
    for ranks, key, more, rule in (
        ([3, 2, 1], "another1", {}, "already-answered"),
        ([3, 2, 1], "the-same", {"rationale": "because"}, "key-reused"),
        ([1, 2, 3], "the-same", {"rationale": "other words"}, "key-reused"),
    ):
        with pytest.raises(Refused) as refusal:
            small.submit(0, mine, ranks, key=key, **more)  # type: ignore[arg-type]
        assert refusal.value.rule == rule
    assert small.scalar(select(func.count()).select_from(Answer)) == 1


def test_a_revision_supersedes_and_never_overwrites(tmp_path: Path) -> None:
    small = Small(tmp_path, 1, raters=1)
    mine = small.given(0, now=0.0)
    first = small.submit(0, mine, [1, 2, 3], key="first-key", now=10.0, rationale="old", strength=3)
    with small.database.read() as session:
        given, stored = reopen(session, small.raters[0], first.answer, now=20.0)
    assert given == mine and stored.text is not None and stored.text.rationale == "old"
    second = small.submit(0, mine, [3, 2, 1], key="second-key", now=30.0, revises=first.answer)
    assert (second.revision, second.surplus) == (2, False)
    with pytest.raises(Refused) as refusal:
        small.submit(0, mine, [1, 1, 1], key="third-key", now=40.0, revises=first.answer)
    assert (refusal.value.rule, refusal.value.facts) == ("wrong-revision", {"answer": second.answer})
    with pytest.raises(Refused) as refusal:  # the time runs from the first answer on
        small.submit(0, mine, [1, 1, 1], key="third-key", now=11.0 + UNDO_SECONDS, revises=second.answer)
    assert refusal.value.rule == "undo-too-late"
    with small.database.read() as session:
        rows = session.scalars(select(Answer).order_by(Answer.id)).all()
        assert [(row.ranks, row.supersedes_id, row.slot_id) for row in rows] == [
            ([1, 2, 3], None, 1),
            ([3, 2, 1], first.answer, None),
        ]
        assert rows[0].app_version and rows[0].shown == mine.shown
        assert [one.ranks for one in counted(session, 1)[1]] == [[3, 2, 1]]
        assert session.get_one(AnswerText, first.answer).rationale == "old"
        assert session.scalar(select(func.count()).where(Audit.action == "answered")) == 2


def test_a_skipped_item_goes_to_others_with_its_reason(tmp_path: Path) -> None:
    small = Small(tmp_path, 2, raters=2)
    mine = small.given(0)
    with small.database.write() as session:
        skip(session, small.raters[0], mine.assignment, "cannot-judge", "It is Latin.")
        skip(session, small.raters[0], mine.assignment, "cannot-judge", "It is Latin.")  # twice is once
    assert small.given(0).item == 2
    assert small.given(1).item == 1
    row = small.scalar(select(Skip))
    assert (row.reason, row.text) == ("cannot-judge", "It is Latin.")
    with pytest.raises(Refused, match="skipped"):
        small.submit(0, mine, [1, 2, 3])


def test_the_most_urgent_item_goes_out_first_also_when_it_becomes_so_later(tmp_path: Path) -> None:
    items = [{"id": "a", "prompt": "a"}, {"id": "b", "prompt": "b", "priority": 2.0}, {"id": "c", "prompt": "c"}]
    small = Small(tmp_path, items, raters=2)
    assert small.given(0).item == 2
    with small.database.write() as session:
        change_item(session, 1, 3, ItemChange(priority=5.0), 1, by=small.raters[0])
    assert small.given(1).item == 3
    with small.database.write() as session, pytest.raises(Refused) as refusal:
        change_item(session, 1, 3, ItemChange(priority=5.0), 1, by=small.raters[0])
    assert refusal.value.rule == "wrong-version"


def test_an_item_may_want_more_answers_than_the_project(tmp_path: Path) -> None:
    items = [{"id": "a", "prompt": "a", "overlap": 3}, {"id": "b", "prompt": "b"}]
    small = Small(tmp_path, items, raters=4)
    assert [small.given(rater).item for rater in range(4)] == [1, 1, 1, 2]
    with small.database.write() as session:
        change_item(session, 1, 2, ItemChange(overlap=2), 1, by=small.raters[0], now=1000.0)
        change_item(session, 1, 1, ItemChange(overlap=1), 1, by=small.raters[0], now=1000.0)  # slots at work stay
        assert session.scalar(select(func.count()).where(Slot.item_id == 1)) == 3
        assert item_of(session, 1, 1).item.overlap == 1
        later = 1001.0 + LEASE_SECONDS  # what was abandoned goes
        change_item(session, 1, 1, ItemChange(overlap=1), 2, by=small.raters[0], now=later)
        assert session.scalar(select(func.count()).where(Slot.item_id == 1)) == 1


def test_skills_and_warnings_route_items(tmp_path: Path) -> None:
    items = [
        {"id": "a", "prompt": "a", "tags": ["de", "law"]},
        {"id": "b", "prompt": "b", "tags": ["de"]},
        {"id": "c", "prompt": "c", "tags": ["grim", "funny"]},
    ]
    small = Small(tmp_path, items, raters=3, overlap=3, skills=["de", "law"], warnings={"grim": "Grim."})
    with small.database.write() as session:
        for rater, skills, opted_out in ((0, ["de", "law"], []), (1, ["de"], []), (2, [], ["grim"])):
            member = session.get_one(Member, small.raters[rater].id)
            member.skills, member.opted_out = skills, opted_out

    def all_of(rater: int) -> list[int]:
        seen = []
        while (found := small.next(rater)) is not None:
            small.submit(rater, found, [1, 2, 3])
            seen.append(found.item)
        return seen

    assert (all_of(0), all_of(1), all_of(2)) == ([1, 2, 3], [2, 3], [])


def test_an_item_that_a_rater_opts_out_of_is_not_given_again(tmp_path: Path) -> None:
    items = [{"id": "a", "prompt": "a", "tags": ["grim"]}, {"id": "b", "prompt": "b"}]
    small = Small(tmp_path, items, raters=1, warnings={"grim": "Grim."})
    grim = small.given(0)
    with small.database.write() as session:
        session.get_one(Member, small.raters[0].id).opted_out = ["grim"]
    assert small.given(0).item == 2 != grim.item
    with small.database.write() as session:
        session.get_one(Member, small.raters[0].id).opted_out = []
    assert small.given(0) == grim


def test_gold_items_are_mixed_in_at_the_rate_in_unpredictable_places(tmp_path: Path) -> None:
    gold = [{"id": f"g{n}", "prompt": f"g{n}", "gold": [1, 2, 3]} for n in range(60)]
    real = [{"id": f"r{n}", "prompt": f"r{n}"} for n in range(200)]
    small = Small(tmp_path, gold + real, raters=2, overlap=2, gold_rate=0.2, practice=0)
    places = []
    for rater in range(2):
        purposes = []
        for _ in range(100):
            found = small.given(rater)
            assert small.given(rater) == found  # asking again is no way to another draw
            small.submit(rater, found, [1, 2, 3])
            purposes.append(found.purpose)
        places.append([n for n, purpose in enumerate(purposes) if purpose == "gold"])
    assert places[0] != places[1]
    assert all(5 <= len(one) <= 40 for one in places)  # 20 are expected; beyond is four standard deviations
    kinds = Counter()  # type: ignore[var-annotated]
    with small.database.read() as session:
        kinds.update(session.scalars(select(Answer.kind)))
        assert not session.scalars(select(Slot).join(Item).where(Item.gold.is_not(None))).all()
        assert all(session.get_one(Item, key).gold is None for key in counted(session, 1))
    assert kinds == {"gold": len(places[0]) + len(places[1]), "rated": 200 - len(places[0]) - len(places[1])}


def test_a_rater_is_trained_before_real_items(tmp_path: Path) -> None:
    gold = [{"id": f"g{n}", "prompt": f"g{n}", "gold": [1, 2, 3]} for n in range(4)]
    small = Small(tmp_path, [*gold, {"id": "r", "prompt": "r"}], raters=2, qualify=2, practice=2)
    right, wrong = [1, 2, 3], [3, 2, 1]
    told = []
    for number, ranks in enumerate((right, wrong, right)):
        found = small.given(0)
        assert found.purpose == "training"
        receipt = small.submit(0, found, ranks, key=f"key-{number:04}")
        assert receipt.feedback is not None and receipt.feedback.gold == [1, 2, 3]
        assert small.submit(0, found, ranks, key=f"key-{number:04}") == receipt  # a lost receipt comes again
        told.append((receipt.feedback.correct, receipt.feedback.passed))
        with pytest.raises(Refused) as refusal, small.database.read() as session:
            reopen(session, small.raters[0], receipt.answer, now=1000.0)
        assert refusal.value.rule == "undo-too-late"  # the solution was shown
    assert told == [(True, 1), (False, 1), (True, 2)]
    assert small.given(0).purpose in ("item", "gold")
    for number in range(4):
        small.submit(1, small.given(1), wrong, key=f"key-{number:04}")
    assert small.next(1) is None  # no gold item is left to pass


def test_agreement_with_gold() -> None:
    """Of three pairs: by hand."""
    assert agreement_with_gold([1, 2, 3], [1, 2, 3]) == 1.0
    assert agreement_with_gold([1, 3, 2], [1, 2, 3]) == pytest.approx(2 / 3)
    assert agreement_with_gold([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / 3)
    assert agreement_with_gold([3, 2, 1], [1, 2, 3]) == 0.0
    assert is_correct([1, 2], [1, 2]) and not is_correct([1, 1], [1, 2]) and is_correct([2, 1], [3, 1])
    assert not is_correct([1, 3, 2], [1, 2, 3])


def test_a_closed_project_gives_nothing_and_keeps_what_is_late(tmp_path: Path) -> None:
    small = Small(tmp_path, 2, raters=1)
    mine = small.given(0)
    with small.database.write() as session:
        session.get_one(Project, 1).closed_at = 5.0
    assert small.next(0) is None
    assert small.submit(0, mine, [1, 2, 3]).surplus


def test_every_event_is_told(tmp_path: Path) -> None:
    small = Small(tmp_path, 2, raters=1)
    with small.database.write() as session:
        hook = Webhook(project_id=1, url="https://example.org", events=list(get_args(Event)), created_at=0.0)
        session.add(hook)
    small.submit(0, small.given(0), [1, 2, 3])
    mine = small.given(0)
    with small.database.write() as session:
        ask(session, small.raters[0], mine.assignment, "words that stay here, too")
        skip(session, small.raters[0], mine.assignment, "broken", "words that stay here")
        change_project(session, 1, ProjectChange(qualify=0), None, by=None)
        settle_splits(session, session.get_one(Project, 1))
    with small.database.read() as session:
        told = {row.event: row.body for row in session.scalars(select(Delivery))}
    assert told.keys() == set(get_args(Event)) and "words" not in str(told)


def test_drafts_are_kept_until_the_answer(tmp_path: Path) -> None:
    small = Small(tmp_path, 1, raters=1)
    mine, rater = small.given(0), small.raters[0]
    deep: dict[str, Any] = {}
    for _ in range(600):
        deep = {"deeper": deep}
    with small.database.write() as session:
        assert drafts.save(session, rater, mine.assignment, {"ranks": [None, 1, None]}, None) == 1
        assert drafts.save(session, rater, mine.assignment, {"ranks": [2, 1, None]}, 1) == 2
        with pytest.raises(Refused) as refusal:
            drafts.save(session, rater, mine.assignment, {}, 1)
        assert (refusal.value.rule, refusal.value.facts) == ("wrong-version", {"version": 2})
        with pytest.raises(Refused) as refusal:
            drafts.save(session, rater, mine.assignment, {"long": "x" * drafts.LONGEST}, 2)
        assert refusal.value.rule == "too-long"
        for body in ({"half": "\ud800"}, {"number": float("nan")}, deep):  # they could not be read back
            with pytest.raises(Refused) as refusal:
                drafts.save(session, rater, mine.assignment, body, 2)
            assert refusal.value.rule == "bad-input"
        assert drafts.read(session, rater, mine.assignment) == (2, {"ranks": [2, 1, None]})
    small.submit(0, mine, [1, 2, 3])
    with small.database.read() as session:
        assert drafts.find(session, mine.assignment) is None


def test_the_next_free_slot_comes_from_an_index(tmp_path: Path) -> None:
    """However many slots are filled: SQLite must not sort, nor read them all."""
    small = Small(tmp_path, 3, raters=1)
    from annotate.services.assignment import _free_slots

    with small.database.read() as session:
        query = _free_slots(small.raters[0], session.get_one(Project, 1), 1.0).limit(1)
        plan = session.execute(
            text("EXPLAIN QUERY PLAN " + str(query.compile(session.get_bind(), compile_kwargs={"literal_binds": True})))
        ).all()
    steps = [row.detail for row in plan]
    assert any(
        "ix_slots_project_id_filled_position_turn_item_id_number (project_id=? AND filled=?)" in s for s in steps
    ), steps
    assert not any("TEMP B-TREE" in step for step in steps), json.dumps(steps)


def test_the_database_itself_refuses(tmp_path: Path) -> None:
    small = Small(tmp_path, 1, raters=2)
    mine = small.given(0)
    small.submit(0, mine, [1, 2, 3], key="the-same")
    for statement in ("UPDATE answers SET ranks = '[3]'", "DELETE FROM answers", "DELETE FROM audit"):
        with pytest.raises(IntegrityError, match="append-only"), small.database.write() as session:
            session.execute(text(statement))
    first, second = (rater.id for rater in small.raters)
    values = {"item_id": 1, "ranks": [1, 2, 3], "flags": [], "kind": "rated", "revision": 1}
    for more, names in (
        ({"member_id": second, "slot_id": 1}, "slot_id"),  # a slot takes one answer
        ({"member_id": first, "kind": "surplus"}, "revision"),  # nobody answers an item anew
        ({"member_id": second, "kind": "surplus", "revision": 2}, "revision"),  # a revision has something to revise
        ({"member_id": second, "kind": "surplus", "revision": 2, "supersedes_id": 1}, "FOREIGN KEY"),  # of one's own
        ({"member_id": first, "revision": 2, "supersedes_id": 1, "idempotency_key": "the-same"}, "idempotency_key"),
    ):
        with pytest.raises(IntegrityError, match=names), small.database.write() as session:
            session.add(Answer(**{**values, **more}))
