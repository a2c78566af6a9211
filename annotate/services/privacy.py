"""What is stored about one person: read all of it, or erase it.

Erasing cuts the tie between a person and their answers: identity, free text and drafts are deleted, and the ranks stay
under a new pseudonym, which no earlier export has.
"""

import sqlite3
import time
from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, delete, or_, select, text, update
from sqlalchemy.orm import Session

from annotate.services.members import free_leases, is_active_owner, lock_owners, lose_ownership, part_elsewhere
from annotate.services.people import new_pseudonym
from annotate.services.projects import note
from annotate.services.refusals import Refused
from annotate.store.access import FailedLogin, Link, Login, Token
from annotate.store.database import BUSY_SECONDS, Database
from annotate.store.tables import (
    Answer,
    AnswerText,
    Assignment,
    Audit,
    Chat,
    Decision,
    Draft,
    Member,
    Person,
    Project,
    Question,
    Skip,
)

# What would tell a rater, who may be handed all this, which items were checks.
_BLIND_KINDS = {"gold": "rated"}
_BLIND_DETAILS = {"kind", "purpose"}


def data_of_member(session: Session, member: Member) -> dict[str, Any]:
    """What one project stores about a member, JSON-able. The account comes with it if it has no part elsewhere."""
    person = session.get(Person, member.person_id) if member.person_id is not None else None
    alone = person is not None and not part_elsewhere(session, person.id, [member.project_id])
    return {
        "format": 1,
        "identity": {"rater": member.rater, "login": person and person.login, "name": person and person.name},
        "account": _account(session, person) if person and alone else None,
        "projects": [_part(session, member)],
    }


def data_of_person(session: Session, person_id: int) -> dict[str, Any]:
    """What the whole database stores about somebody who can log in, JSON-able."""
    person = session.get_one(Person, person_id)
    members = session.scalars(select(Member).where(Member.person_id == person_id).order_by(Member.id))
    return {
        "format": 1,
        "identity": {"rater": person.login, "login": person.login, "name": person.name},
        "account": _account(session, person),
        "projects": [_part(session, member) for member in members],
    }


def erase(session: Session, project_id: int, member_id: int, *, by: Member | None) -> str:
    """Erase who a member is, and their free text. Returns the new pseudonym. Call `scrub` after the transaction.

    The account goes, too, unless it has a part in another project, which stays as it is. Erasing again gives another
    pseudonym. Raises Refused where nobody would own the project any more.
    """
    lock_owners(session, project_id, by)
    member = session.get(Member, member_id, with_for_update=True, populate_existing=True)
    if member is None or member.project_id != project_id:
        raise Refused("not-found", "There is no such person in this project.")
    if session.get_bind().dialect.name == "sqlite":
        session.execute(text("PRAGMA secure_delete=ON"))
    was_owner, person_id = is_active_owner(member), member.person_id
    answers, assignments = _ids(Answer, member), _ids(Assignment, member)
    session.execute(delete(AnswerText).where(AnswerText.answer_id.in_(answers)))
    session.execute(delete(Draft).where(Draft.assignment_id.in_(assignments)))
    session.execute(update(Skip).where(Skip.member_id == member.id).values(text=None))
    session.execute(delete(Question).where(Question.member_id == member.id))
    session.execute(update(Question).where(Question.replied_by == member.id).values(reply="", replied_by=None))
    session.execute(update(Decision).where(Decision.member_id == member.id).values(rationale=None))
    session.execute(update(Chat).where(Chat.member_id == member.id).values(turns=[]))  # what was voted on is an item
    free_leases(session, member)
    member.pseudonym = member.rater = new_pseudonym()
    member.person_id = None
    member.skills, member.opted_out = [], []
    member.removed_at = member.removed_at or time.time()
    member.version += 1
    session.flush()
    if was_owner:
        lose_ownership(session, member)
    if person_id is not None and not part_elsewhere(session, person_id, []):
        _erase_person(session, person_id)
    # No person: the entry must not lead back to anybody. The member's id stands for the answers that stay.
    note(session, "erased", project=project_id, member=by.id if by and by.id != member.id else None, of=member.id)
    return member.pseudonym


def scrub(database: Database) -> bool:
    """Write the whole SQLite file anew, so that nothing deleted can be read in it any more; readers go on meanwhile.

    Deleting alone leaves copies: in a draft that was replaced, in a page that SQLite once split, in the write-ahead
    log. Returns False where that was not possible: the disk is full, somebody keeps on reading, or it is PostgreSQL,
    which overwrites what is dead in its own time.
    """
    if database.engine.dialect.name != "sqlite":
        return False
    connection = database.engine.raw_connection()
    try:
        driver = connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.execute("VACUUM")
        # Where another connection is writing the log back just then, SQLite does not wait for it, so this does.
        ends = time.monotonic() + BUSY_SECONDS
        while driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            if time.monotonic() > ends:
                return False
            time.sleep(0.1)
        return True
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()


# --- inside ------------------------------------------------------------------------------------------------------


def _ids(table: Any, member: Member) -> Any:
    return select(table.id).where(table.member_id == member.id)


def _erase_person(session: Session, person_id: int) -> None:
    person = session.get(Person, person_id, with_for_update=True)
    assert person is not None
    session.execute(delete(Login).where(Login.person_id == person_id))
    session.execute(delete(Token).where(Token.person_id == person_id))
    session.execute(delete(Link).where(Link.person_id == person_id))
    session.execute(delete(FailedLogin).where(FailedLogin.login == person.login))
    session.delete(person)
    session.flush()


def _account(session: Session, person: Person) -> dict[str, Any]:
    logins = session.scalars(select(Login).where(Login.person_id == person.id).order_by(Login.id))
    tokens = session.scalars(select(Token).where(Token.person_id == person.id).order_by(Token.id))
    failed = select(FailedLogin.at).where(FailedLogin.login == person.login).order_by(FailedLogin.at)
    return {
        "openid": person.openid,
        "has_password": bool(person.password_hash),
        "created_at": person.created_at,
        "sessions": [{"created_at": one.created_at, "expires_at": one.expires_at} for one in logins],
        "tokens": [
            {"name": one.name, "rights": one.rights} | _facts(one, "created_at", "expires_at", "used_at")
            for one in tokens
        ],
        "failed_logins": list(session.scalars(failed)),
        "audit": list(_audit(session, (Audit.person_id == person.id) & (Audit.at >= person.created_at))),
    }


def _part(session: Session, member: Member) -> dict[str, Any]:
    project = session.get_one(Project, member.project_id)
    texts = select(Answer, AnswerText).outerjoin(AnswerText, AnswerText.answer_id == Answer.id)
    answers = session.execute(texts.where(Answer.member_id == member.id).order_by(Answer.id))
    drafts = select(Draft, Assignment.item_id).join(Assignment).where(Assignment.member_id == member.id)
    skips = session.scalars(select(Skip).where(Skip.member_id == member.id).order_by(Skip.id))
    columns = ("rater", "pseudonym", "role", "skills", "opted_out", "guideline", "reliability")
    about = Audit.detail["of"].as_integer() == member.id
    return {
        "project": project.name,
        **{name: getattr(member, name) for name in columns},
        **_facts(member, "qualified_at", "consented_at", "removed_at"),
        "consent_hash": member.consent_hash,
        "answers": [_answer(answer, words) for answer, words in answers],
        "skips": [{"item": one.item_id, "reason": one.reason, "text": one.text, "at": one.at} for one in skips],
        "drafts": [
            {"item": item, "body": draft.body, "saved_at": draft.saved_at} for draft, item in session.execute(drafts)
        ],
        "questions": _rows(session, Question, member, "item_id", "text", "asked_at", "reply", "replied_at", "read_at"),
        "replies": list(session.scalars(select(Question.reply).where(Question.replied_by == member.id))),
        "decisions": _rows(session, Decision, member, "item_id", "ranks", "strength", "rationale", "shown", "at"),
        "chats": _rows(session, Chat, member, "item_id", "turns", "created_at", "updated_at"),
        "audit": list(_audit(session, (Audit.project_id == project.id) & or_(Audit.member_id == member.id, about))),
    }


def _answer(answer: Answer, words: AnswerText | None) -> dict[str, Any]:
    columns = (
        "ranks",
        "strength",
        "ratings",
        "flags",
        "spans",
        "shown",
        "seconds",
        "guideline",
        "submitted_at",
        "revision",
    )
    return {
        "answer": answer.id,
        "item": answer.item_id,
        "kind": _BLIND_KINDS.get(answer.kind, answer.kind),
        **{name: getattr(answer, name) for name in columns},
        "rationale": words and words.rationale,
        "edited": words and words.edited,
    }


def _rows(session: Session, table: Any, member: Member, *names: str) -> list[dict[str, Any]]:
    rows = session.scalars(select(table).where(table.member_id == member.id).order_by(table.id))
    return [_facts(row, *names) for row in rows]


def _audit(session: Session, which: ColumnElement[bool]) -> Iterator[dict[str, Any]]:
    for entry in session.scalars(select(Audit).where(which).order_by(Audit.id)):
        detail = {key: value for key, value in entry.detail.items() if key not in _BLIND_DETAILS}
        yield {"at": entry.at, "action": entry.action, "detail": detail}


def _facts(row: object, *names: str) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}
