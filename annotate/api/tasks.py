"""An item as one rater sees it: found inside a transaction, drawn outside of it, so that nobody waits for that."""

from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from annotate.api.render import turns_to_html
from annotate.services.assignment import LEASE_SECONDS, Given
from annotate.services.masks import mask_names
from annotate.services.projects import Dimension
from annotate.store.tables import Draft, Item, Project


class Turn(BaseModel):
    role: str
    html: str


class EditedOut(BaseModel):
    response: int = Field(description="which one, from 0, as shown")
    text: str


class SpanOut(BaseModel):
    """A marked passage: characters of the visible text of a response, which counts from 0 as shown."""

    response: int
    start: int
    end: int
    text: str
    mark: Literal["good", "bad"]


class GivenOut(BaseModel):
    """An answer as its rater sees it, in the order shown."""

    ranks: list[int]
    strength: int | None
    ratings: dict[str, list[float]] | None
    flags: list[str]
    spans: list[SpanOut]
    rationale: str | None
    edited: EditedOut | None


class Asks(BaseModel):
    """What the project asks for beyond the ranking."""

    dimensions: list[Dimension]
    all_bad: bool
    rationale: Literal["off", "optional", "required"]
    edit: bool
    spans: bool


class DraftOut(BaseModel):
    version: int
    body: dict[str, Any]


class Task(BaseModel):
    """An item as one rater sees it: responses in this rater's own order."""

    assignment: int
    prompt: list[Turn]
    responses: list[list[Turn]]
    texts: list[str] | None = Field(description="the source of each response's last turn, where it may be rewritten")
    strength: bool = Field(description="whether to ask how much better the best is")
    asks: Asks
    training: bool = Field(description="whether it trains the rater, who hears afterwards what is right")
    lease_seconds: float = Field(description="how long it is kept for this rater; drafts and `renew` lengthen it")
    draft: DraftOut | None = Field(description="what this rater has filled in and not submitted")
    warnings: list[str] = Field(description="content warnings")
    revises: int | None = Field(default=None, description="the answer that this one would supersede")
    given: GivenOut | None = Field(default=None, description="that answer")


class Found(NamedTuple):
    """What of the database a task is drawn from."""

    given: Given
    prompt: list[dict[str, Any]]
    responses: list[dict[str, Any]]
    draft: tuple[int, dict[str, Any]] | None
    warnings: list[str]
    project: Project


def find_task(session: Session, project: Project, given: Given) -> Found:
    query = (
        select(Item.prompt, Item.responses, Item.tags, Draft.version, Draft.body)
        .outerjoin(Draft, Draft.assignment_id == given.assignment)
        .where(Item.id == given.item)
    )
    prompt, responses, tags, version, body = session.execute(query).one()
    warnings = [project.warnings[tag] for tag in tags if tag in project.warnings]
    draft = None if version is None else (version, body)
    return Found(given, prompt, responses, draft, warnings, project)


def draw_task(found: Found) -> Task:
    given, project = found.given, found.project
    responses = [found.responses[index]["messages"] for index in given.shown]
    texts = [mask_names(messages[-1]["content"], project.mask)[0] for messages in responses] if project.edit else None
    return Task(
        assignment=given.assignment,
        prompt=[Turn(**turn) for turn in turns_to_html(found.prompt)],
        responses=[[Turn(**turn) for turn in turns_to_html(messages, project.mask)] for messages in responses],
        texts=texts,
        strength=project.strength,
        asks=Asks.model_validate(project, from_attributes=True),
        training=given.purpose == "training",
        lease_seconds=LEASE_SECONDS,
        draft=DraftOut(version=found.draft[0], body=found.draft[1]) if found.draft else None,
        warnings=found.warnings,
    )
