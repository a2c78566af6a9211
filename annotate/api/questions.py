"""Raters ask the owners about an item, and the owners reply; and what a rater has done and earned."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from annotate.api.problems import PROBLEMS
from annotate.api.render import EXCERPT, excerpt
from annotate.api.security import AnyAsker
from annotate.api.shapes import LARGEST_ID, After, Id, Limit, Strict
from annotate.services import questions as service
from annotate.services.earnings import done_of, earned, unread_replies
from annotate.services.projects import Pay
from annotate.services.rights import Right
from annotate.store.tables import Project

router = APIRouter(prefix="/api/v1/projects/{project_id}", tags=["questions"], responses=PROBLEMS)


class MineOut(BaseModel):
    """What a rater has done here. Only active time counts."""

    answers: int
    active_seconds: float
    earned: float | None = Field(description="null where the project says nothing about pay")
    pay: Pay | None
    unread: int = Field(description="replies to the rater's questions that they have not seen")


class QuestionIn(Strict):
    assignment: Annotated[int, Field(ge=1, le=LARGEST_ID)]
    text: Annotated[str, Field(min_length=1, max_length=5000)]


class QuestionMade(BaseModel):
    question: int


class ReplyIn(Strict):
    text: Annotated[str, Field(min_length=1, max_length=5000)]


class OwnQuestion(BaseModel):
    question: int
    asked_at: float
    prompt: str = Field(description=f"its last turn, {EXCERPT} characters at most")
    text: str
    reply: str | None
    replied_at: float | None
    read: bool = Field(description="whether the rater has seen the reply")


class OwnQuestions(BaseModel):
    questions: list[OwnQuestion]


class QuestionOut(BaseModel):
    question: int
    item: int
    key: str
    rater: str = Field(description="for owners who it is, for others the pseudonym")
    asked_at: float
    prompt: str
    text: str
    reply: str | None
    replied_at: float | None


class QuestionPage(BaseModel):
    questions: list[QuestionOut]
    after: int | None = Field(description="give it as `after` for the next page; null on the last one")


@router.get("/mine")
def mine(project_id: Id, asker: AnyAsker) -> MineOut:
    """How much this rater has done and earned here, and whether a reply is waiting."""
    with asker.reads(project_id, Right.RATE) as (session, member):
        project = session.get_one(Project, project_id)
        done, unread = done_of(session, member), unread_replies(session, member)
    return MineOut(
        answers=done.answers,
        active_seconds=done.seconds,
        earned=earned(project, done.answers, done.seconds),
        pay=Pay(**project.pay) if project.pay else None,
        unread=unread,
    )


@router.post("/questions", status_code=201)
def ask(project_id: Id, body: QuestionIn, asker: AnyAsker) -> QuestionMade:
    """Ask the owners about an item that was given to this rater."""
    with asker.writes(project_id, Right.RATE) as (session, member):
        return QuestionMade(question=service.ask(session, member, body.assignment, body.text))


@router.get("/questions/mine")
def own_questions(project_id: Id, asker: AnyAsker) -> OwnQuestions:
    """This rater's questions and the replies, the newest first, a hundred at most."""
    with asker.reads(project_id, Right.RATE) as (session, member):
        rows = service.own_questions(session, member)
    return OwnQuestions(
        questions=[
            OwnQuestion(
                question=one.id,
                asked_at=one.asked_at,
                prompt=excerpt(item.prompt),
                text=one.text,
                reply=one.reply,
                replied_at=one.replied_at,
                read=one.read_at is not None,
            )
            for one, item in rows
        ]
    )


@router.post("/questions/read", status_code=204)
def mark_read(project_id: Id, asker: AnyAsker) -> None:
    """Say that this rater has seen the replies."""
    with asker.writes(project_id, Right.RATE) as (session, member):
        service.mark_read(session, member)


@router.get("/questions")
def questions(project_id: Id, asker: AnyAsker, after: After = 0, limit: Limit = 50) -> QuestionPage:
    """What raters have asked, by number."""
    with asker.reads(project_id, Right.REVIEW) as (session, member):
        names = asker.may(member, Right.PEOPLE)
        rows = service.questions_of(session, project_id, after=after, limit=limit + 1)
    out = [
        QuestionOut(
            question=one.id,
            item=item.id,
            key=item.key,
            rater=who.rater if names else who.pseudonym,
            asked_at=one.asked_at,
            prompt=excerpt(item.prompt),
            text=one.text,
            reply=one.reply,
            replied_at=one.replied_at,
        )
        for one, item, who in rows[:limit]
    ]
    return QuestionPage(questions=out, after=out[-1].question if len(rows) > limit else None)


@router.post("/questions/{question_id}/reply", status_code=204)
def reply(project_id: Id, question_id: Id, body: ReplyIn, asker: AnyAsker) -> None:
    """Reply to a question; the rater sees it when they next look."""
    with asker.writes(project_id, Right.MANAGE) as (session, member):
        service.reply(session, project_id, question_id, body.text, by=member)
