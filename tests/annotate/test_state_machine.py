"""Assignments and answers under every order of events, against a model in plain Python, on SQLite and PostgreSQL.

The model knows the rules of docs/api.md and nothing of the code: what each rater may be given next, what becomes of
their answers, and what is refused by which rule. After every step the database holds exactly what the model holds.
"""

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import create_engine, make_url, select, text, update

from annotate.services import assignment, drafts, refit
from annotate.services.answers import UNDO_SECONDS, reopen, submit
from annotate.services.assignment import LEASE_SECONDS, next_assignment, renew, skip
from annotate.services.exchange import import_items
from annotate.services.items import ItemChange, change_item
from annotate.services.projects import ProjectChange, ProjectSettings, change_project, create_project
from annotate.services.refusals import Refused
from annotate.store.database import Database, open_database
from annotate.store.tables import Answer, Assignment, Draft, Item, Member, Project, Slot
from preferences import contract
from preferences.files import write_jsonl
from preferences.stats.consensus import ItemFit, Said, fit, posterior
from preferences.stats.spend import certainty

RATERS = 4
ITEMS = [
    {"id": "plain", "prompt": "p1", "responses": ["x", "y", "z"], "overlap": 4},
    {"id": "urgent", "prompt": "p2", "responses": ["x", "y", "z"], "priority": 1.0, "overlap": 1},
    {"id": "german", "prompt": "p3", "responses": ["x", "y", "z"], "tags": ["de"], "overlap": 3},
    {"id": "grim", "prompt": "p4", "responses": ["x", "y", "z"], "tags": ["grim"]},
    {"id": "gold1", "prompt": "p5", "responses": ["x", "y", "z"], "gold": [1, 2, 3]},
    {"id": "gold2", "prompt": "p6", "responses": ["x", "y", "z"], "gold": [3, 2, 1], "tags": ["de"]},
]
RANKS = st.sampled_from([[1, 2, 3], [3, 2, 1], [1, 1, 2]])
WHO = st.integers(0, RATERS - 1)


def fill(database: Database, folder: Path) -> None:
    """One project with a skill, a warning, gold items and training, and its raters; only the last one knows German."""
    write_jsonl(folder / "items.jsonl", ITEMS)
    with database.write() as session:
        training = {"qualify": 1, "practice": 2, "gold_rate": 0.4}
        wishes = ProjectSettings(overlap=2, skills=["de"], warnings={"grim": "It is grim."}, **training)
        project = create_project(session, "p", guidelines=None, settings=wishes)
        import_items(session, project, contract.read_items(folder / "items.jsonl"), folder / "items.jsonl")
        for number in range(RATERS):
            skills = ["de"] if number == RATERS - 1 else []
            session.add(Member(project_id=1, rater=f"r{number}", role="rater", pseudonym=f"p{number}", skills=skills))


@dataclass
class Place:
    """A slot: whose it is (an index of a rater), until when, and whether it is filled; and when it is its turn."""

    number: int
    turn: float
    whose: int | None = None
    until: float = 0.0
    filled: bool = False

    def free(self, now: float) -> bool:
        return not self.filled and (self.whose is None or self.until < now)


@dataclass
class Given:
    """What a rater was given: in which order, for what, and what became of it."""

    number: int
    item: int
    purpose: str
    shown: list[int]
    state: str = "open"
    draft: int | None = None
    answers: list[tuple[int, str, list[int], float]] = field(default_factory=list)  # (id, key, ranks, when)
    kind: str = ""


class Service(RuleBasedStateMachine):
    make: Callable[[], Database]

    @initialize(trained=st.booleans(), sure=st.sampled_from([None, 0.75, 0.9]))
    def begin(self, trained: bool, sure: float | None) -> None:
        self.database, self.sure = type(self).make(), sure
        with self.database.write() as session:
            session.execute(update(Member).values(qualified_at=1.0 if trained else None))
            session.execute(update(Project).values(sure=sure))
        with self.database.read() as session:
            self.members = list(session.scalars(select(Member).order_by(Member.id)))
            items = list(session.scalars(select(Item).order_by(Item.id)))
        self.items = {item.id: item for item in items}
        self.overlap = {item.id: item.overlap for item in items if item.gold is None}
        self.slots = {item: [Place(n + 1, item) for n in range(most)] for item, most in self.overlap.items()}
        self.trust: dict[str, float] = {}  # of each rater, as last fitted
        self.parameters = fit([]).parameters
        self.given: list[list[Given]] = [[] for _ in range(RATERS)]
        self.qualified = [trained] * RATERS
        self.practised: list[list[bool]] = [[] for _ in range(RATERS)]  # whether each practice item was passed
        self.opted_out = [False] * RATERS
        self.now, self.closed = 1000.0, False
        assignment._random = random.Random(0)  # type: ignore[assignment]  # so that an example can be run again

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.engine.dispose()

    # --- the model's rules ---

    def open_to(self, who: int) -> list[int]:
        """Items that this rater was never given and may be."""
        seen = {one.item for one in self.given[who]}
        return [number for number in self.items if number not in seen and not self.blocked(who, number)]

    def blocked(self, who: int, item: int) -> bool:
        tags = ({"de"} if who != RATERS - 1 else set()) | ({"grim"} if self.opted_out[who] else set())
        return bool(tags & set(self.items[item].tags))

    def lease(self, who: int, item: int) -> bool:
        own = [slot for slot in self.slots[item] if slot.whose == who and not slot.filled]
        free = own or [slot for slot in self.slots[item] if slot.free(self.now)]
        if free:
            free[0].whose, free[0].until = who, self.now + LEASE_SECONDS
        return bool(free)

    def counted(self, item: int) -> list[tuple[int, Said]]:
        """The answers that stand and count: (when it came, what it says)."""
        given = [(who, one) for who, all_ in enumerate(self.given) for one in all_ if one.item == item]
        return [
            (one.answers[-1][0], Said(f"p{who}", one.answers[-1][2], None, one.shown))
            for who, one in given
            if one.kind == "rated"
        ]

    def settle(self, item: int, found: ItemFit | None = None) -> None:
        """Where the answers to an item are sure it has no free slots; else as many as it wants, in a turn by that."""
        if self.sure is None:
            return
        said = [answer for _, answer in self.counted(item)]
        found = found or posterior(said, self.trust, self.parameters)
        slots = self.slots[item]
        if len(said) >= 2 and certainty(found) >= self.sure:
            slots[:] = [slot for slot in slots if not slot.free(self.now)]
            return
        turn = item + 10_000 * round(2 * certainty(found) - 1, 3)
        for slot in slots:
            if slot.free(self.now):
                slot.turn = turn
        self.fill_up(item, turn)

    def fill_up(self, item: int, turn: float) -> None:
        slots = self.slots[item]
        while len(slots) < self.overlap[item]:
            used = {slot.number for slot in slots}
            slots.append(Place(next(n for n in range(1, 9) if n not in used), turn))
            slots.sort(key=lambda slot: slot.number)

    # --- what raters do ---

    @rule(who=WHO, holds=st.booleans())
    def ask(self, who: int, holds: bool) -> None:
        held = [one for one in self.given[who] if one.state == "open"]
        holding = [held[0].number] if holds and held else []
        with self.database.write() as session:
            member, project = session.get_one(Member, self.members[who].id), session.get_one(Project, 1)
            found = next_assignment(session, member, project, holding=holding, now=self.now)
        if self.closed:
            assert found is None
            return
        for one in held:
            if one.number in holding or self.blocked(who, one.item):
                continue
            if not self.qualified[who] and one.purpose != "training":
                continue
            if one.purpose != "item" or self.lease(who, one.item):
                assert found == (one.number, one.item, one.purpose, one.shown)  # as it was
                return
        possible = self.open_to(who)
        gold = [item for item in possible if self.items[item].gold is not None]
        real = [n for n in possible if n not in gold and any(slot.free(self.now) for slot in self.slots[n])]

        def turn(item: int) -> tuple[float, float, int]:
            first = min(slot.turn for slot in self.slots[item] if slot.free(self.now))
            return -self.items[item].priority, first, item

        best = min(real, key=turn, default=None)
        if not gold and any(self.practised[who]):
            self.qualified[who] = True  # there is nothing left to practise on
        if not self.qualified[who]:
            allowed = [(item, "training") for item in gold]
        else:
            allowed = [] if best is None else [(best, "item"), *((item, "gold") for item in gold)]
        if found is None:
            assert not allowed
            return
        assert (found.item, found.purpose) in allowed and sorted(found.shown) == [0, 1, 2]
        self.given[who].append(Given(found.assignment, found.item, found.purpose, found.shown))
        assert found.purpose != "item" or self.lease(who, found.item)

    @rule(seconds=st.sampled_from([1.0, UNDO_SECONDS + 1, LEASE_SECONDS - 1, LEASE_SECONDS + 1]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(who=WHO, ranks=RANKS, key=st.sampled_from(["key-one-1", "key-two-2"]), revises=st.booleans(), data=st.data())
    def answer(self, who: int, ranks: list[int], key: str, revises: bool, data: Any) -> None:
        if not self.given[who]:
            return
        self.submit(who, data.draw(st.sampled_from(self.given[who])), ranks, key, revises)

    @rule(who=WHO, ranks=st.sampled_from([[1, 2, 3], [1, 2, 3], [1, 2, 3], [3, 2, 1]]))
    def rate(self, who: int, ranks: list[int]) -> None:
        """Ask, and answer at once: so that items come to be sure, or contested."""
        self.ask(who, False)
        for one in self.given[who]:
            if one.state == "open":
                self.submit(who, one, ranks, "key-rate-3", False)
                return

    def submit(self, who: int, one: Given, ranks: list[int], key: str, revises: bool) -> None:
        newest = one.answers[-1] if one.answers else None
        wants = newest[0] if revises and newest else 10**6 if revises else None
        known = next((answer for answer in one.answers if answer[1] == key), None)
        if known:
            expected = None if known[2] == ranks else "key-reused"
        elif one.state == "skipped":
            expected = "already-skipped"
        elif newest is None:
            expected = "wrong-revision" if revises else None
        elif not revises:
            expected = "already-answered"
        else:
            late = self.now > one.answers[0][3] + UNDO_SECONDS or one.purpose == "training"
            expected = "undo-too-late" if late else "project-closed" if self.closed else None
        try:
            with self.database.write() as session:
                member, project = session.get_one(Member, self.members[who].id), session.get_one(Project, 1)
                receipt = submit(
                    session,
                    member,
                    project,
                    one.number,
                    contract.Answer(rater="x", ranks=ranks),
                    key=key,
                    guideline=None,
                    revises=wants,
                    now=self.now,
                )
        except Refused as error:
            assert error.rule == expected, (error.rule, expected)
            return
        assert expected is None
        if known:
            assert receipt.answer == known[0]
            return
        if newest is None:
            one.state, one.draft, one.kind = "answered", None, one.purpose
            if one.purpose == "gold" and self.closed:
                one.kind = "surplus"  # as any other, so that nobody can tell
            if one.purpose == "item":
                counted = not self.closed and self.lease(who, one.item)
                one.kind = "rated" if counted else "surplus"
                for slot in self.slots[one.item]:
                    if counted and slot.whose == who:
                        slot.filled, slot.until = True, 0.0
            if one.purpose == "training":
                self.practised[who].append(ranks == self.items[one.item].gold)
                self.qualified[who] |= len(self.practised[who]) >= 2 and any(self.practised[who])
        one.answers.append((receipt.answer, key, ranks, self.now))
        if one.kind == "rated":
            self.settle(one.item)
        assert (receipt.revision, receipt.surplus) == (len(one.answers), one.kind == "surplus")
        assert (receipt.feedback is not None) == (one.purpose == "training")

    @rule(who=WHO, data=st.data())
    def look_back(self, who: int, data: Any) -> None:
        answered = [one for one in self.given[who] if one.answers]
        if not answered:
            return
        one = data.draw(st.sampled_from(answered))
        late = self.now > one.answers[0][3] + UNDO_SECONDS or one.purpose == "training"
        with self.database.read() as session:
            try:
                again, stored = reopen(session, self.members[who], one.answers[-1][0], now=self.now)
                assert not late and again.assignment == one.number and stored.answer.ranks == one.answers[-1][2]
            except Refused as error:
                assert late and error.rule == "undo-too-late"
            if len(one.answers) > 1 and not late:
                with pytest.raises(Refused, match="Another answer"):
                    reopen(session, self.members[who], one.answers[0][0], now=self.now)

    @rule(who=WHO, verb=st.sampled_from(["skip", "renew", "draft", "draft of nothing"]), data=st.data())
    def else_with_an_item(self, who: int, verb: str, data: Any) -> None:
        if not self.given[who]:
            return
        one = data.draw(st.sampled_from(self.given[who]))
        expected = None if one.state == "open" or (verb, one.state) == ("skip", "skipped") else f"already-{one.state}"
        stale = verb == "draft of nothing" and one.draft is not None
        try:
            with self.database.write() as session:
                member = session.get_one(Member, self.members[who].id)
                if verb == "skip":
                    skip(session, member, one.number, "broken", "why", now=self.now)
                elif verb == "renew":
                    renew(session, member, one.number, now=self.now)
                else:
                    version = None if verb == "draft of nothing" else one.draft
                    saved = drafts.save(session, member, one.number, {"a": 1}, version, now=self.now)
        except Refused as error:
            if expected is None and verb == "renew":
                expected = "assignment-expired" if one.purpose == "item" and not self.lease(who, one.item) else None
            assert error.rule == (expected or ("wrong-version" if stale else None))
            return
        assert expected is None and not stale
        if verb == "skip":
            if one.state == "open" and one.purpose == "item":
                for slot in self.slots[one.item]:
                    if slot.whose == who:
                        slot.whose = None
            one.state, one.draft = "skipped", None
            return
        leased = one.purpose != "item" or self.lease(who, one.item)
        assert leased or verb != "renew"
        if verb != "renew":
            assert saved == (one.draft or 0) + 1
            one.draft = saved

    @rule(who=WHO, other=WHO, data=st.data())
    def meddle(self, who: int, other: int, data: Any) -> None:
        """What another rater was given is refused, whatever is tried."""
        if who == other or not self.given[other]:
            return
        one = data.draw(st.sampled_from(self.given[other]))
        answer = contract.Answer(rater="x", ranks=[1, 2, 3])
        member = self.members[who]
        tries: list[Callable[[Any], Any]] = [
            lambda s: submit(s, member, s.get_one(Project, 1), one.number, answer, key="not-mine", guideline=None),
            lambda s: skip(s, member, one.number, "other", None),
            lambda s: renew(s, member, one.number),
            lambda s: drafts.save(s, member, one.number, {}, one.draft),
            lambda s: drafts.read(s, member, one.number),
        ]
        for attempt in tries:
            with pytest.raises(Refused) as refusal, self.database.write() as session:
                attempt(session)
            assert refusal.value.rule == "not-yours"

    # --- what owners do, and raters with their wishes ---

    @rule(closed=st.booleans())
    def close(self, closed: bool) -> None:
        self.closed = closed
        with self.database.write() as session:
            session.get_one(Project, 1).closed_at = self.now if closed else None

    @rule(who=WHO)
    def opt_out(self, who: int) -> None:
        self.opted_out[who] = not self.opted_out[who]
        with self.database.write() as session:
            session.get_one(Member, self.members[who].id).opted_out = ["grim"] if self.opted_out[who] else []

    @rule(item=st.sampled_from([1, 2, 3, 4]), overlap=st.integers(1, 3))
    def change_overlap(self, item: int, overlap: int) -> None:
        with self.database.write() as session:
            row = session.get_one(Item, item)
            change_item(session, 1, item, ItemChange(overlap=overlap), row.version, by=self.members[0], now=self.now)
        slots = self.slots[item]
        self.overlap[item] = overlap
        for slot in reversed(list(slots)):
            if len(slots) > overlap and slot.free(self.now):
                slots.remove(slot)
        self.fill_up(item, slots[0].turn if slots else item)
        self.settle(item)

    @rule()
    def learn_about_raters(self) -> None:
        """What is known of raters from all answers is what the next ones are settled by, and these."""
        refit.refit(self.database, 1, now=self.now)
        if self.sure is None:
            return
        said = {item: [answer for _, answer in self.counted(item)] for item in self.slots}
        said = {item: sorted(answers, key=lambda one: one.rater) for item, answers in said.items() if answers}
        checks = [(one.item, f"p{who}", one) for who, all_ in enumerate(self.given) for one in all_]
        gold = {item: list(row.gold) for item, row in self.items.items() if row.gold is not None}
        for item, name, one in checks:
            if one.kind == "gold":
                said.setdefault(item, []).append(Said(name, one.answers[-1][2], None, one.shown))
        numbers = sorted(said)
        found = fit([said[item] for item in numbers], {n: gold[item] for n, item in enumerate(numbers) if item in gold})
        self.parameters = found.parameters
        self.trust |= {name: rater.reliability for name, rater in found.raters.items()}
        for item, one in zip(numbers, found.items, strict=True):
            if item in self.slots:
                self.settle(item, one)

    @rule(sure=st.sampled_from([None, 0.75, 0.9]))
    def change_what_is_sure(self, sure: float | None) -> None:
        with self.database.write() as session:
            change_project(session, 1, ProjectChange(sure=sure), None, by=None)
        before, self.sure = self.sure, sure
        if sure is None and before is not None:
            for item, slots in self.slots.items():
                self.fill_up(item, item)
                for slot in slots:
                    slot.turn = slot.turn if slot.filled else item

    # --- what always holds ---

    @invariant()
    def the_database_holds_what_the_model_holds(self) -> None:
        if not hasattr(self, "database"):
            return
        with self.database.read() as session:
            rows = [
                (row.item_id, row.member_id, row.id, row.revision, row.kind, row.idempotency_key, row.ranks, row.shown)
                for row in session.scalars(select(Answer).order_by(Answer.id))
            ]
            assignments = {row.id: (row.member_id, row.state) for row in session.scalars(select(Assignment))}
            slots = [
                (row.item_id, row.number, row.filled, row.assignment_id, row.filled or row.turn)
                for row in session.scalars(select(Slot).order_by(Slot.item_id, Slot.number))
            ]
            kept = {row.assignment_id: row.version for row in session.scalars(select(Draft))}
        ours = [(self.members[who].id, one) for who, all_ in enumerate(self.given) for one in all_]
        assert rows == sorted(
            (
                (one.item, member, number, revision, one.kind, key, ranks, one.shown)
                for member, one in ours
                for revision, (number, key, ranks, _) in enumerate(one.answers, 1)
            ),
            key=lambda row: row[2],
        )
        assert assignments == {one.number: (member, one.state) for member, one in ours}
        assert kept == {one.number: one.draft for _, one in ours if one.draft is not None}
        of = {(member, one.item): one.number for member, one in ours}

        def whose(slot: Place, item: int) -> int | None:
            return None if slot.whose is None else of[self.members[slot.whose].id, item]

        assert slots == [
            (item, slot.number, slot.filled, whose(slot, item), slot.filled or slot.turn)
            for item in sorted(self.slots)
            for slot in self.slots[item]
        ]
        for item, one in self.slots.items():  # never more answers than slots were handed out, of a rater one
            raters = [answer.rater for _, answer in self.counted(item)]
            assert len(raters) == len(set(raters)) == sum(slot.filled for slot in one)


def run(make: Callable[[], Database], examples: int) -> None:
    class OnThis(Service):
        pass

    OnThis.make = staticmethod(make)  # type: ignore[assignment]
    wishes = settings(
        max_examples=examples, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(OnThis, settings=wishes)


def test_on_sqlite(tmp_path: Path) -> None:
    template = open_database(str(tmp_path / "template.db"), create=True)
    fill(template, tmp_path)
    template.engine.dispose()
    numbers = iter(range(10**6))

    def make() -> Database:
        path = tmp_path / f"{next(numbers)}.db"
        shutil.copy(tmp_path / "template.db", path)
        return open_database(str(path))

    run(make, examples=120)


def test_on_postgresql(tmp_path: Path, new_database: Callable[[], str]) -> None:
    url = new_database()
    template = open_database(url)
    fill(template, tmp_path)
    template.engine.dispose()
    server = create_engine(make_url(url).set(database="postgres"), isolation_level="AUTOCOMMIT")
    name = make_url(url).database
    made: list[str] = []

    def make() -> Database:
        made.append(f"{name}_{len(made)}")
        with server.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {made[-1]} TEMPLATE {name}"))
        return open_database(make_url(url).set(database=made[-1]).render_as_string(hide_password=False))

    try:
        run(make, examples=25)
    finally:
        with server.connect() as connection:
            for one in made:
                connection.execute(text(f"DROP DATABASE {one} WITH (FORCE)"))
        server.dispose()
