"""What raters ask the owners about an item, and the replies."""

import time
from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from annotate.services.assignment import given_to, lock_member
from annotate.services.projects import note
from annotate.services.refusals import Refused
from annotate.services.webhooks import announce
from annotate.store.tables import Item, Member, Question


def ask(session: Session, member: Member, assignment_id: int, text: str) -> int:
    """Store a rater's question about an item that they were given. Returns its number."""
    if not text.strip():
        raise Refused("bad-input", "Write what you would like to ask.")
    lock_member(session, member)
    item = given_to(session, member, assignment_id).item_id
    question = Question(item_id=item, member_id=member.id, text=text.strip(), asked_at=time.time())
    session.add(question)
    session.flush()
    note(session, "asked", project=member.project_id, member=member.id, item=item, question=question.id)
    announce(session, member.project_id, "question.asked", question=question.id, item=item)
    return question.id


def own_questions(session: Session, member: Member, *, limit: int = 100) -> list[tuple[Question, Item]]:
    """A rater's own questions with their items, the newest first."""
    query = select(Question, Item).join(Item).where(Question.member_id == member.id)
    return [(question, item) for question, item in session.execute(query.order_by(Question.id.desc()).limit(limit))]


def mark_read(session: Session, member: Member) -> None:
    """The rater has seen all replies that are there."""
    unread = (Question.member_id == member.id, Question.replied_at.is_not(None), Question.read_at.is_(None))
    session.execute(update(Question).where(*unread).values(read_at=time.time()))


def questions_of(
    session: Session, project_id: int, *, after: int, limit: int
) -> Sequence[tuple[Question, Item, Member]]:
    """A project's questions with item and asker: by number, from above `after`."""
    query = select(Question, Item, Member).join(Item, Item.id == Question.item_id)
    query = query.join(Member, Member.id == Question.member_id)
    query = query.where(Item.project_id == project_id, Question.id > after).order_by(Question.id).limit(limit)
    return [(question, item, who) for question, item, who in session.execute(query)]


def reply(session: Session, project_id: int, question_id: int, text: str, *, by: Member) -> None:
    """Answer a question; a second reply takes the place of the first, and is unread again."""
    if not text.strip():
        raise Refused("bad-input", "Write a reply.")
    lock_member(session, by)
    query = select(Question).join(Item).where(Question.id == question_id, Item.project_id == project_id)
    question = session.scalars(query.with_for_update(of=Question)).one_or_none()
    if question is None:
        raise Refused("not-found", "There is no such question in this project.")
    question.reply, question.replied_by, question.replied_at = text.strip(), by.id, time.time()
    question.read_at = None
    note(session, "replied", project=project_id, member=by.id, question=question.id)
