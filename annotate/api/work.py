"""What a rater does: be given an item, keep a draft, answer, skip, change one's mind. The page and scripts use it.

Everything is in the order in which the task showed the responses, without models, ids, tags, or what others said.
"""

from typing import Annotated, Any, Literal, NamedTuple, cast

from fastapi import APIRouter, BackgroundTasks
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from annotate.api.problems import PROBLEMS
from annotate.api.progress import progress_of
from annotate.api.render import EXCERPT, excerpt, to_html
from annotate.api.security import AnyAsker
from annotate.api.shapes import LARGEST_ID, Id, Strict
from annotate.api.tasks import DraftOut, EditedOut, Found, GivenOut, SpanOut, Task, draw_task, find_task
from annotate.services import drafts
from annotate.services.answers import (
    Feedback,
    Receipt,
    Shown,
    in_import_order,
    in_shown_order,
    own_answers,
    reopen,
    submit,
)
from annotate.services.assignment import (
    LEASE_SECONDS,
    blocked_tags,
    given_to,
    lock_member,
    next_assignment,
    renew,
    skip,
)
from annotate.services.projects import comes_first
from annotate.services.refit import is_due, refit
from annotate.services.rights import Right
from annotate.store.tables import Member, Project

router = APIRouter(prefix="/api/v1/projects/{project_id}", tags=["rating"], responses=PROBLEMS)
LONGEST_TEXT = 20_000  # characters of a rationale, an edit or a marked passage
LONGEST_RESPONSE = 100_000_000  # characters, more than an import takes
AnId = Annotated[int, Field(ge=1, le=LARGEST_ID)]
Key = Annotated[str, Field(min_length=8, max_length=80, description="the same for every try of one submission")]
Why = Literal["nothing-left", "arena", "project-closed", "not-qualified", "guidelines-first", "consent-first"]
FlagName = Literal["unsafe", "broken", "pii", "cannot-judge", "all-bad"]


class Progress(BaseModel):
    done: int
    total: int = Field(description="`done` and about how many are left; rounded where checks are mixed in")


class NextOut(BaseModel):
    task: Task | None = Field(description="null when nothing is there for this rater now; `why` says why")
    why: Why | None
    progress: Progress


class NextIn(Strict):
    holding: list[AnId] = Field(default=[], max_length=2, description="assignments that the page has already")


class EditedIn(Strict):
    response: Annotated[int, Field(ge=0, le=1000)]
    text: Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]


class SpanIn(Strict):
    response: Annotated[int, Field(ge=0, le=1000)]
    start: Annotated[int, Field(ge=0, le=LONGEST_RESPONSE)]
    end: Annotated[int, Field(ge=1, le=LONGEST_RESPONSE)]
    text: Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]
    mark: Literal["good", "bad"]


class AnswerIn(NextIn):
    """Ranks and strength in the order that the task showed: the sign of a pair's strength is below 0 for the first."""

    assignment: AnId
    key: Key
    ranks: list[Annotated[int, Field(ge=1, le=1000)]]
    strength: Annotated[int, Field(ge=-3, le=3)] | None = None
    ratings: dict[str, list[Annotated[float, Field(allow_inf_nan=False)]]] | None = Field(default=None, max_length=20)
    flags: list[FlagName] = Field(default=[], max_length=5)
    spans: list[SpanIn] = Field(default=[], max_length=200)
    rationale: Annotated[str, Field(max_length=LONGEST_TEXT)] | None = None
    edited: EditedIn | None = None
    seconds: Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)] | None = None
    revises: AnId | None = Field(default=None, description="the answer of this rater that this one supersedes")


class FeedbackOut(BaseModel):
    """What is right about a training item, in the order shown."""

    ranks: list[int]
    explanation_html: str | None = Field(description="why, in the owner's words")
    correct: bool
    done: int = Field(description="practice items that the rater has answered")
    practice: int = Field(description="of how many")
    passed: int
    needed: int = Field(description="how many of them must be right")
    over: bool = Field(description="whether the real items follow")


class ReceiptOut(BaseModel):
    answer: int
    revision: int
    surplus: bool = Field(description="kept and paid, not counted: others had filled the item, or it was closed")
    feedback: FeedbackOut | None


class SubmittedOut(BaseModel):
    receipt: ReceiptOut
    next: NextOut


class SkipIn(NextIn):
    assignment: AnId
    reason: Literal["unsafe", "broken", "pii", "cannot-judge", "other"]
    text: Annotated[str, Field(max_length=LONGEST_TEXT)] | None = None


class DraftIn(Strict):
    body: dict[str, Any]
    version: Annotated[int, Field(ge=1, le=LARGEST_ID)] | None = Field(
        default=None, description="the version that this one replaces; null for the first"
    )


class SavedOut(BaseModel):
    version: int


class LeaseOut(BaseModel):
    lease_seconds: float


class OwnAnswer(BaseModel):
    answer: int
    revision: int
    submitted_at: float
    seconds: float | None
    surplus: bool
    can_revise: bool
    prompt: str = Field(description=f"its last turn, {EXCERPT} characters at most")
    ranks: list[int] = Field(description="as shown")
    strength: int | None = Field(description="as shown")
    flags: list[str]


class OwnAnswers(BaseModel):
    answers: list[OwnAnswer]
    older: int | None = Field(description="give it as `before` for the next page; null on the last one")


@router.post("/next")
def next_item(project_id: Id, body: NextIn, asker: AnyAsker, afterwards: BackgroundTasks) -> NextOut:
    """Lease this rater's next item; asked again before an answer, it is the same item in the same order."""
    with asker.writes(project_id, Right.RATE) as (session, member):
        project = session.get_one(Project, project_id)
        if first := comes_first(session, project, member):
            raise first
        following = _next(session, member, project, body.holding)
    _fit(asker, project, afterwards, answered=False)
    return _drawn(following)


@router.post("/answers")
def answer(project_id: Id, body: AnswerIn, asker: AnyAsker, afterwards: BackgroundTasks) -> SubmittedOut:
    """Store an answer and lease the next item. The receipt comes only after the answer is on the disk.

    Where the guidelines have changed since the item was given, the answer counts as given under those that the rater
    has read, and nothing more is given before they have read the new ones.
    """
    edited = (body.edited.response, body.edited.text) if body.edited else None
    spans = [span.model_dump() for span in body.spans]
    shown = Shown(body.ranks, body.strength, body.ratings, body.flags, spans, body.rationale, edited, body.seconds)
    with asker.writes(project_id, Right.RATE) as (session, member):
        project = session.get_one(Project, project_id)
        lock_member(session, member)
        assignment = given_to(session, member, body.assignment)
        given = in_import_order(assignment.shown, shown)
        receipt = submit(
            session,
            member,
            project,
            body.assignment,
            given,
            key=body.key,
            guideline=member.guideline,
            revises=body.revises,
        )
        following = _next(session, member, project, body.holding)
    _fit(asker, project, afterwards, answered=True)
    return SubmittedOut(receipt=_receipt(receipt), next=_drawn(following))


@router.get("/answers/mine")
def my_answers(
    project_id: Id,
    asker: AnyAsker,
    before: AnId | None = None,
    limit: Annotated[int, Field(ge=1, le=200)] = 50,
) -> OwnAnswers:
    """This rater's own answers, the newest first."""
    with asker.reads(project_id, Right.RATE) as (session, member):
        rows = own_answers(session, member, before=before, limit=limit + 1)
    out = [
        OwnAnswer(
            answer=row.id,
            revision=row.revision,
            submitted_at=row.submitted_at or 0.0,
            seconds=row.seconds,
            surplus=row.kind == "surplus",
            can_revise=can_revise,
            prompt=excerpt(prompt),
            ranks=(seen := in_shown_order(row.shown or range(len(row.ranks)), row, None)).ranks,
            strength=seen.strength,
            flags=row.flags,
        )
        for row, prompt, can_revise in rows
    ]
    return OwnAnswers(answers=out[:limit], older=out[limit - 1].answer if len(out) > limit else None)


@router.post("/answers/{answer_id}/reopen")
def reopen_answer(project_id: Id, answer_id: Id, asker: AnyAsker) -> Task:
    """Undo: the task of an answer given a short while ago. The answer stands until another one `revises` it."""
    with asker.reads(project_id, Right.RATE) as (session, member):
        given, stored = reopen(session, member, answer_id)
        before = in_shown_order(given.shown, stored.answer, stored.text)
        found = find_task(session, session.get_one(Project, member.project_id), given)
    task = draw_task(found)
    edited = EditedOut(response=before.edited[0], text=before.edited[1]) if before.edited else None
    task.given = GivenOut(
        ranks=before.ranks,
        strength=before.strength,
        ratings=before.ratings,
        flags=list(before.flags),
        spans=[SpanOut(**span) for span in before.spans],
        rationale=before.rationale,
        edited=edited,
    )
    task.revises = answer_id
    return task


@router.post("/skips")
def skip_item(project_id: Id, body: SkipIn, asker: AnyAsker) -> NextOut:
    """Pass an item on, with the reason, and lease the next one."""
    with asker.writes(project_id, Right.RATE) as (session, member):
        project = session.get_one(Project, project_id)
        skip(session, member, body.assignment, body.reason, body.text)
        following = _next(session, member, project, body.holding)
    return _drawn(following)


@router.post("/assignments/{assignment_id}/renew")
def renew_lease(project_id: Id, assignment_id: Id, asker: AnyAsker) -> LeaseOut:
    """Lengthen the lease of an item that this rater is at work on."""
    with asker.writes(project_id, Right.RATE) as (session, member):
        renew(session, member, assignment_id)
    return LeaseOut(lease_seconds=LEASE_SECONDS)


@router.put("/assignments/{assignment_id}/draft")
def save_draft(project_id: Id, assignment_id: Id, body: DraftIn, asker: AnyAsker) -> SavedOut:
    """Keep what this rater has filled in, and lengthen the lease if it still can be."""
    with asker.writes(project_id, Right.RATE) as (session, member):
        return SavedOut(version=drafts.save(session, member, assignment_id, body.body, body.version))


@router.get("/assignments/{assignment_id}/draft")
def read_draft(project_id: Id, assignment_id: Id, asker: AnyAsker) -> DraftOut:
    """What this rater has filled in."""
    with asker.reads(project_id, Right.RATE) as (session, member):
        version, body = drafts.read(session, member, assignment_id)
    return DraftOut(version=version, body=body)


def _fit(asker: AnyAsker, project: Project, afterwards: BackgroundTasks, *, answered: bool) -> None:
    """Learn from what was answered, once this rater has their reply and if it is time for it."""
    if project.sure is not None and is_due(asker.database, project.id, answered=answered):
        afterwards.add_task(refit, asker.database, project.id)


# --- drawing, outside of the transaction, which would keep the other raters waiting -------------------------------


class _Following(NamedTuple):
    found: Found | None
    why: Why | None
    progress: Progress


def _next(session: Session, member: Member, project: Project, holding: list[int]) -> _Following:
    first = comes_first(session, project, member)
    given = None if first else next_assignment(session, member, project, holding=holding)
    blocked = frozenset(blocked_tags(member, project))
    done, left = progress_of(session, project, member, blocked)
    if given is not None:
        return _Following(find_task(session, project, given), None, Progress(done=done, total=done + left))
    why: Why = "nothing-left"
    if first is not None:
        why = cast(Why, first.rule)
    elif project.closed_at is not None:
        why = "project-closed"
    elif project.arena:
        why = "arena"
    elif project.qualify and member.qualified_at is None:
        why = "not-qualified"
    return _Following(None, why, Progress(done=done, total=done + len(set(holding))))


def _drawn(following: _Following) -> NextOut:
    task = draw_task(following.found) if following.found else None
    return NextOut(task=task, why=following.why, progress=following.progress)


def _receipt(receipt: Receipt) -> ReceiptOut:
    told: Feedback | None = receipt.feedback
    feedback = None
    if told is not None:
        ranks = [told.gold[index] for index in receipt.shown]
        why = to_html(told.explanation) if told.explanation else None
        facts = {name: getattr(told, name) for name in ("correct", "done", "practice", "passed", "needed", "over")}
        feedback = FeedbackOut(ranks=ranks, explanation_html=why, **facts)
    return ReceiptOut(answer=receipt.answer, revision=receipt.revision, surplus=receipt.surplus, feedback=feedback)
