"""The REST API of the pages, and of scripts: what a rater reads and submits, what an owner sees.

Errors are {"detail": "one sentence"}: 401 signed out, 403 not yours, 409 something must happen first, 413 too long,
422 bad shape, 503 the database failed.
"""

from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from annotate.api.render import to_html, turns_to_html
from annotate.api.security import LARGEST_ID, AnyVisitor, DatabaseOfApp, Owner, Rater, WritingRater
from annotate.services.answers import Refused, in_import_order, submit
from annotate.services.assignment import next_assignment, progress
from annotate.services.people import memberships
from annotate.services.projects import current_guideline, guideline_version
from annotate.services.report import project_report
from annotate.store.tables import Assignment, Item, Member, Project

router = APIRouter(prefix="/api")


class ProjectOut(BaseModel):
    id: int
    name: str
    role: Literal["rater", "owner"]
    simulated: bool


class Me(BaseModel):
    login: str
    csrf_token: str = Field(description="Send it back as X-CSRF-Token with every POST.")
    projects: list[ProjectOut]


class GuidelinesOut(BaseModel):
    version: int | None = Field(description="null where the project has no guidelines")
    html: str
    read: bool


class Turn(BaseModel):
    role: str
    html: str


class Task(BaseModel):
    """An item as one rater sees it: responses in this rater's own order, without models, ids or tags."""

    assignment: int
    prompt: list[Turn]
    responses: list[list[Turn]]
    strength: bool = Field(description="whether to ask how much better the best is")


class Progress(BaseModel):
    done: int
    total: int


class NextOut(BaseModel):
    task: Task | None = Field(description="null when nothing is left for this rater now")
    progress: Progress


class ReadIn(BaseModel):
    version: int


class AnswerIn(BaseModel):
    """Ranks and strength in the order that the task showed: the sign of a pair's strength is below 0 for the first."""

    model_config = ConfigDict(extra="forbid")

    assignment: Annotated[int, Field(ge=1, le=LARGEST_ID)]
    key: Annotated[str, Field(min_length=8, max_length=80, description="the same for every try of one submission")]
    ranks: list[Annotated[int, Field(ge=1, le=1000)]]
    strength: Annotated[int, Field(ge=-3, le=3)] | None = None
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class ReceiptOut(BaseModel):
    answer: int
    surplus: bool


class SubmittedOut(BaseModel):
    receipt: ReceiptOut
    next: NextOut


@router.get("/me")
def me(who: AnyVisitor, database: DatabaseOfApp) -> Me:
    with database.read() as session:
        projects = [
            ProjectOut.model_validate(
                {"id": project.id, "name": project.name, "role": member.role, "simulated": project.simulated}
            )
            for member, project in memberships(session, who.person.id)
        ]
    return Me(login=who.person.login, csrf_token=who.csrf_token, projects=projects)


@router.get("/projects/{project_id}/guidelines")
def guidelines(member: Rater, database: DatabaseOfApp) -> GuidelinesOut:
    with database.read() as session:
        guideline = current_guideline(session, member.project_id)
    if guideline is None:
        return GuidelinesOut(version=None, html="", read=True)
    read = member.guideline == guideline.version
    return GuidelinesOut(version=guideline.version, html=to_html(guideline.text), read=read)


@router.post("/projects/{project_id}/guidelines/read")
def guidelines_read(body: ReadIn, member: WritingRater, database: DatabaseOfApp) -> GuidelinesOut:
    """Say that this rater has read this version of the guidelines."""
    with database.write() as session:
        if body.version != guideline_version(session, member.project_id):
            raise HTTPException(409, "The guidelines have changed; read the new ones.")
        session.get_one(Member, member.id).guideline = body.version
    return guidelines(member, database)


@router.post("/projects/{project_id}/next")
def next_item(member: WritingRater, database: DatabaseOfApp) -> NextOut:
    """Lease this rater's next item; asked again before an answer, it is the same item in the same order."""
    with database.write() as session:
        _require_guidelines(session, member)
        following = _next(session, member)
    return _shown(following)


@router.post("/projects/{project_id}/answers")
def answer(body: AnswerIn, member: WritingRater, database: DatabaseOfApp) -> SubmittedOut:
    """Store an answer and lease the next item. The receipt comes only after the answer is on the disk."""
    with database.write() as session:
        guideline = _require_guidelines(session, member)
        try:
            given = in_import_order(session, body.assignment, body.ranks, body.strength, body.seconds)
            receipt = submit(session, member, body.assignment, given, key=body.key, guideline=guideline)
        except Refused as error:
            raise HTTPException(409, str(error)) from None
        following = _next(session, member)
    return SubmittedOut(receipt=ReceiptOut(answer=receipt.answer, surplus=receipt.surplus), next=_shown(following))


@router.get("/projects/{project_id}/report")
def report(member: Owner, database: DatabaseOfApp) -> dict[str, Any]:
    """What `annotate report --json` prints; for owners only."""
    with database.read() as session:
        return project_report(session, session.get_one(Project, member.project_id))


def _require_guidelines(session: Session, member: Member) -> int | None:
    version = guideline_version(session, member.project_id)
    if version is not None and session.get_one(Member, member.id).guideline != version:
        raise HTTPException(409, "Read the guidelines first.")
    return version


class _Next(NamedTuple):
    found: tuple[Assignment, Item] | None
    progress: Progress
    strength: bool


def _next(session: Session, member: Member) -> _Next:
    found = next_assignment(session, member)
    done, total = progress(session, member)
    strength = session.get_one(Project, member.project_id).strength
    return _Next(found, Progress(done=done, total=total), strength)


def _shown(following: _Next) -> NextOut:
    """Draw what was leased: outside of the transaction, which would keep the other raters waiting."""
    if following.found is None:
        return NextOut(task=None, progress=following.progress)
    assignment, item = following.found
    task = Task(
        assignment=assignment.id,
        prompt=[Turn(**turn) for turn in turns_to_html(item.prompt)],
        responses=[
            [Turn(**turn) for turn in turns_to_html(item.responses[index]["messages"])] for index in assignment.shown
        ],
        strength=following.strength,
    )
    return NextOut(task=task, progress=following.progress)
