"""Answers: check, store and revise one, and read what counts. A stored row never changes; a revision follows it."""

import time
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

from sqlalchemy import exists, insert, select
from sqlalchemy.orm import Session, aliased

from annotate.services.assignment import Given, end, given_to, lock_member, take_slot
from annotate.services.gold import Feedback, feedback_of, train
from annotate.services.projects import note
from annotate.services.refusals import Refused
from annotate.services.sure import lock_item, settle
from annotate.services.webhooks import announce
from annotate.store.tables import Answer as AnswerRow
from annotate.store.tables import AnswerText, Assignment, Chat, Item, Member, Project
from preferences.contract import Answer, Edit, Span, check_answer

UNDO_SECONDS = 15 * 60.0
ALL_BAD = "all-bad"  # a flag: none of the responses is good enough


class Receipt(NamedTuple):
    """`surplus`: others had filled the item, or the project was closed; the answer is kept and paid, not counted.

    `shown` is the order of the responses on the rater's screen.
    """

    answer: int
    revision: int
    surplus: bool
    submitted_at: float
    shown: list[int]
    feedback: Feedback | None = None


class GivenAnswer(NamedTuple):
    """A stored answer, its free text if there is any, and who gave it."""

    answer: AnswerRow
    text: AnswerText | None
    member: Member


def submit(
    session: Session,
    member: Member,
    project: Project,
    assignment_id: int,
    answer: Answer,
    *,
    key: str,
    guideline: int | None,
    revises: int | None = None,
    now: float | None = None,
) -> Receipt:
    """Store one rater's answer to an assignment, with its slot and audit entry, in the caller's transaction.

    `answer` is in import order. The same answer with the same idempotency `key` again returns the first receipt. A
    late answer takes a free slot, or else is surplus. `revises` is the rater's answer that this one supersedes, within
    UNDO_SECONDS of the first. Raises Refused where a rule is against it.
    """
    now = time.time() if now is None else now
    lock_member(session, member)
    row = given_to(session, member, assignment_id)
    given = Given(row.id, row.item_id, row.purpose, row.shown)
    stored = _revisions(session, given.item, member.id)
    answer = _as_asked(session, answer, project, stored[-1] if stored else None)
    again = _stored_before(session, member, stored, key, answer)
    if again is not None:
        return again
    if row.state == "skipped":
        raise Refused("already-skipped", "You have skipped this item; reload the page to get the next one.")
    if stored:
        _check_revision(session, stored, revises, now)
        if project.closed_at is not None:
            raise Refused("project-closed", "The project is closed, so your answer stays as it is.")
    elif revises is not None:
        raise Refused("wrong-revision", "There is no answer of yours to change; submit this one as a new one.")
    _check(answer, project, len(given.shown))
    lock_item(session, project, given.item)

    first = stored[0] if stored else None
    slot, kind = None, given.purpose
    if first is not None:
        kind = first.kind
    elif given.purpose == "item":
        slot = take_slot(session, given, now) if project.closed_at is None else None
        kind = "surplus" if slot is None else "rated"
    elif given.purpose == "gold" and project.closed_at is not None:
        kind = "surplus"  # as any other answer to it, so that nobody can tell
    if stored and stored[-1].seconds is not None:  # the time of a change comes on top
        answer = answer.model_copy(update={"seconds": stored[-1].seconds + (answer.seconds or 0.0)})
    number = session.scalar(
        insert(AnswerRow)
        .values(
            item_id=given.item,
            member_id=member.id,
            slot_id=slot,
            revision=len(stored) + 1,
            supersedes_id=stored[-1].id if stored else None,
            kind=kind,
            idempotency_key=key,
            shown=given.shown,
            guideline=guideline,
            app_version=app_version(),
            submitted_at=now,
            **answer_columns(answer),
        )
        .returning(AnswerRow.id)
    )
    assert number is not None
    if texts := text_columns(answer):
        session.execute(insert(AnswerText).values(answer_id=number, **texts))
    end(session, assignment_id, "answered")
    if kind == "rated":
        settle(session, project, given.item, now)
    revision = len(stored) + 1
    note(session, "answered", project=project.id, member=member.id, answer=number, kind=kind, revision=revision)
    announce(session, project.id, "answer.stored", answer=number, item=given.item, revision=revision)
    feedback = train(session, member, project, given.item) if kind == "training" else None
    return Receipt(number, revision, kind == "surplus", now, given.shown, feedback)


def reopen(session: Session, member: Member, answer_id: int, *, now: float | None = None) -> tuple[Given, GivenAnswer]:
    """An answer of this rater, to be changed: it stands until a revision of it is submitted.

    Raises Refused if it is not theirs, is superseded, or was given more than UNDO_SECONDS ago.
    """
    now = time.time() if now is None else now
    answer = session.get(AnswerRow, answer_id)
    if answer is None or answer.member_id != member.id or answer.kind == "imported":
        raise Refused("not-found", "You have given no such answer.")
    _check_revision(session, _revisions(session, answer.item_id, member.id), answer_id, now)
    query = select(Assignment.id, Assignment.item_id, Assignment.purpose, Assignment.shown)
    row = session.execute(query.where(Assignment.item_id == answer.item_id, Assignment.member_id == member.id)).one()
    return Given(*row), GivenAnswer(answer, session.get(AnswerText, answer_id), member)


class OwnAnswer(NamedTuple):
    """A standing answer as a list of a rater's own has it: the item's prompt, and whether it may still be changed."""

    answer: AnswerRow
    prompt: list[dict[str, Any]]
    can_revise: bool


def own_answers(
    session: Session, member: Member, *, before: int | None, limit: int, now: float | None = None
) -> list[OwnAnswer]:
    """A rater's standing answers, the newest first, below `before`."""
    now = time.time() if now is None else now
    first, newer = aliased(AnswerRow), aliased(AnswerRow)
    revealed = exists().where(Chat.item_id == AnswerRow.item_id)
    query = (
        select(AnswerRow, Item.prompt, first.submitted_at, revealed)
        .join(Item, Item.id == AnswerRow.item_id)
        .join(first, (first.item_id == AnswerRow.item_id) & (first.member_id == AnswerRow.member_id))
        .where(first.revision == 1, AnswerRow.member_id == member.id, AnswerRow.kind != "imported")
        .where(~exists().where(newer.supersedes_id == AnswerRow.id))
    )
    if before is not None:
        query = query.where(AnswerRow.id < before)
    rows = session.execute(query.order_by(AnswerRow.id.desc()).limit(limit))
    return [
        OwnAnswer(answer, prompt, _against_revising(answer, first_at, seen, now) is None)
        for answer, prompt, first_at, seen in rows
    ]


class Shown(NamedTuple):
    """An answer in the order of an assignment: what a page shows and sends. `edited` is (position, text)."""

    ranks: list[int]
    strength: int | None = None
    ratings: dict[str, list[float]] | None = None
    flags: Sequence[str] = ()
    spans: Sequence[dict[str, Any]] = ()
    rationale: str | None = None
    edited: tuple[int, str] | None = None
    seconds: float | None = None


def in_import_order(shown: Sequence[int], given: Shown) -> Answer:
    """Undo the order that an assignment showed. Raises Refused if the lengths don't fit."""
    count = len(shown)
    lists: dict[str, Sequence[float]] = {"ranks": given.ranks, **(given.ratings or {})}
    for name, values in lists.items():
        if len(values) != count:
            raise Refused("does-not-fit", f"This answer can't be stored: {len(values)} {name} for {count} responses.")
    if given.edited is not None and not 0 <= given.edited[0] < count:
        raise Refused("does-not-fit", f"This answer can't be stored: it edits response {given.edited[0]} of {count}.")
    if any(not 0 <= span["response"] < count for span in given.spans):
        raise Refused("does-not-fit", f"This answer can't be stored: it marks a response that is none of {count}.")
    at = [shown.index(index) for index in range(count)]  # where each response of the import stood
    strength = given.strength
    if strength is not None and list(shown) == [1, 0]:
        strength = -strength
    return Answer(
        rater="-",
        ranks=[given.ranks[position] for position in at],
        strength=strength,
        ratings={name: [values[p] for p in at] for name, values in given.ratings.items()} if given.ratings else None,
        flags=list(given.flags),
        spans=[Span(**{**span, "response": shown[span["response"]]}) for span in given.spans] or None,
        rationale=given.rationale,
        edited=Edit(response=shown[given.edited[0]], text=given.edited[1]) if given.edited else None,
        seconds=given.seconds,
    )


def in_shown_order(shown: Sequence[int], answer: AnswerRow, text: AnswerText | None) -> Shown:
    """The other way round: a stored answer as its rater saw it."""
    strength = answer.strength
    if strength is not None and list(shown) == [1, 0]:
        strength = -strength
    edited = text.edited if text else None
    return Shown(
        ranks=[answer.ranks[index] for index in shown],
        strength=strength,
        ratings={name: [values[index] for index in shown] for name, values in (answer.ratings or {}).items()} or None,
        flags=answer.flags,
        spans=[{**span, "response": list(shown).index(span["response"])} for span in answer.spans or []],
        rationale=text.rationale if text else None,
        edited=(list(shown).index(edited["response"]), edited["text"]) if edited else None,
        seconds=answer.seconds,
    )


def answer_columns(answer: Answer) -> dict[str, Any]:
    """The columns that a rated and an imported answer share."""
    return {
        "ranks": answer.ranks,
        "strength": answer.strength,
        "ratings": answer.ratings,
        "flags": answer.flags or [],
        "spans": [span.model_dump() for span in answer.spans] if answer.spans else None,
        "seconds": answer.seconds,
    }


def text_columns(answer: Answer) -> dict[str, Any]:
    """The columns of AnswerText; empty where the answer has no free text."""
    if not answer.rationale and not answer.edited:
        return {}
    return {
        "rationale": answer.rationale or None,
        "edited": answer.edited.model_dump() if answer.edited else None,
    }


def standing_answers() -> Any:
    """Query of (answer, its text or None, member), without the answers that a revision supersedes."""
    newer = aliased(AnswerRow)
    return (
        select(AnswerRow, AnswerText, Member)
        .join(Member, Member.id == AnswerRow.member_id)
        .outerjoin(AnswerText, AnswerText.answer_id == AnswerRow.id)
        .where(~exists().where(newer.supersedes_id == AnswerRow.id))
    )


@cache
def app_version() -> str:
    return version("concord")


# --- inside ------------------------------------------------------------------------------------------------------


def _revisions(session: Session, item: int, member: int) -> list[AnswerRow]:
    query = select(AnswerRow).where(AnswerRow.item_id == item, AnswerRow.member_id == member)
    return list(session.scalars(query.order_by(AnswerRow.revision)))


def _stored_before(
    session: Session, member: Member, stored: Sequence[AnswerRow], key: str, answer: Answer
) -> Receipt | None:
    """The receipt of the same submission, if it was stored by an earlier try whose receipt got lost on the way."""
    row = next((row for row in stored if row.idempotency_key == key), None)
    if row is None:
        return None
    columns = answer_columns(answer)
    del columns["seconds"]  # a second try comes later
    text = session.get(AnswerText, row.id)
    texts = {"rationale": text.rationale, "edited": text.edited} if text else {}
    if {name: getattr(row, name) for name in columns} != columns or texts != text_columns(answer):
        raise Refused("key-reused", "This answer was stored before with other content, which stands; reload the page.")
    feedback = None
    if row.kind == "training":
        feedback = feedback_of(session, member, session.get_one(Project, member.project_id), row.item_id)
    return Receipt(row.id, row.revision, row.kind == "surplus", row.submitted_at or 0.0, row.shown or [], feedback)


def _check_revision(session: Session, stored: Sequence[AnswerRow], revises: int | None, now: float) -> None:
    newest = stored[-1]
    if revises is None:
        raise Refused("already-answered", "You have answered this item, and that answer stands.", answer=newest.id)
    if revises != newest.id:
        raise Refused("wrong-revision", "Another answer of yours stands by now; reload the page.", answer=newest.id)
    revealed = session.scalar(select(exists().where(Chat.item_id == newest.item_id)))
    against = _against_revising(newest, stored[0].submitted_at, bool(revealed), now)
    if against is not None:
        raise against


def _against_revising(answer: AnswerRow, first_at: float | None, revealed: bool, now: float) -> Refused | None:
    """What keeps a rater from changing an answer that stands, if anything does; it was first given at `first_at`.

    `revealed`: it is a vote of the arena, and its rater has seen the models' names.
    """
    if answer.kind == "training":
        return Refused("undo-too-late", "You have seen what is right, so this practice answer stays as it is.")
    if revealed:
        return Refused("revealed", "You have seen which model is which, so this vote stays as it is.")
    if now > (first_at or 0.0) + UNDO_SECONDS:
        return Refused("undo-too-late", f"An answer can be changed for {UNDO_SECONDS / 60:.0f} minutes only.")
    return None


def _as_asked(session: Session, answer: Answer, project: Project, before: AnswerRow | None) -> Answer:
    """The answer without what would go into training data or reports and the project does not ask for.

    It is left out and not refused: the owner may have switched it off while a page was open. What the answer `before`,
    which this one changes, has of it stays.
    """
    columns, texts = answer_columns(answer), text_columns(answer)
    text = session.get(AnswerText, before.id) if before else None
    keeps_edit = project.edit or bool(text and text.edited == texts.get("edited"))
    keeps_spans = project.spans or bool(before and before.spans == columns["spans"])
    keeps_bad = project.all_bad or bool(project.arena) or bool(before and ALL_BAD in before.flags)
    flags = [flag for flag in dict.fromkeys(answer.flags or []) if flag != ALL_BAD or keeps_bad]
    edited, spans = answer.edited if keeps_edit else None, answer.spans if keeps_spans else None
    return answer.model_copy(update={"flags": flags, "edited": edited, "spans": spans})


def _check(answer: Answer, project: Project, count: int) -> None:
    if answer.strength is not None and not project.strength:
        raise Refused("does-not-fit", "This project does not ask how strongly; leave the strength out.")
    try:
        check_answer(answer, count)
        _check_asked(answer, project)
    except ValueError as error:
        raise Refused("does-not-fit", f"This answer can't be stored: {error}.") from None


def _check_asked(answer: Answer, project: Project) -> None:
    """What the project asks for must be there, and ratings must be steps of its dimensions. Raises ValueError."""
    if project.rationale == "required" and not (answer.rationale or "").strip():
        raise ValueError("rationale: this project asks for a few words on why")
    if not project.dimensions:
        return
    given = answer.ratings or {}
    steps = {one["name"]: len(one["anchors"]) for one in project.dimensions}
    if unknown := sorted(given.keys() - steps.keys()):
        raise ValueError(f"ratings: there is no dimension {unknown[0]!r}; there are {', '.join(map(repr, steps))}")
    for name, most in steps.items():
        if name not in given:
            raise ValueError(f"ratings: {name!r} is missing")
        if any(value != int(value) or not 1 <= value <= most for value in given[name]):
            raise ValueError(f"ratings: {name!r} takes whole numbers from 1 to {most}")
