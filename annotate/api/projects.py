"""Projects: their settings and guidelines, what raters must read and agree to, and how far they are."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, BackgroundTasks, Header, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from annotate.api.problems import PROBLEMS
from annotate.api.render import to_html
from annotate.api.security import AnyAsker
from annotate.api.shapes import LARGEST_ID, Id, Strict
from annotate.api.versions import say_version, version_of
from annotate.services import projects as service
from annotate.services.people import create_own_project
from annotate.services.projects import (
    Dimension,
    Pay,
    Progress,
    ProjectSettings,
    consent_hash,
    current_guideline,
    guideline_version,
    note,
    progress_of,
)
from annotate.services.refit import refit
from annotate.services.refusals import Refused
from annotate.services.report import agreement_report, project_report
from annotate.services.rights import Right
from annotate.store.tables import Project

router = APIRouter(prefix="/api/v1/projects", tags=["projects"], responses=PROBLEMS)


class ProjectOut(BaseModel):
    """A project as its owners and reviewers see it. `version` is also the ETag, which a change must bring back."""

    id: int
    name: str
    role: Literal["rater", "reviewer", "owner"]
    simulated: bool
    closed: bool
    overlap: int
    strength: bool
    gold_rate: float
    qualify: int
    skills: list[str]
    warnings: dict[str, str]
    consent: str | None
    dimensions: list[Dimension]
    all_bad: bool
    rationale: Literal["off", "optional", "required"]
    edit: bool
    spans: bool
    mask: list[str]
    practice: int
    pay: Pay | None = Field(description="for owners")
    arena: list[str]
    sure: float | None = Field(description="how certain it must be what is better for raters to be asked no more")
    hold_back: float | None = Field(description="above which disagreement an item without a decision isn't exported")
    guideline: int | None
    items: int = Field(description="gold items left out")
    slots: int = Field(description="answers that the items want of raters here")
    filled: int = Field(description="how many of them are there")
    open_questions: int = Field(description="questions of raters without a reply")
    version: int


class ProjectPage(BaseModel):
    projects: list[ProjectOut]
    after: int | None = Field(description="give it as `after` for the next page; null on the last one")


class ProjectNew(ProjectSettings):
    name: Annotated[str, Field(min_length=1, max_length=100)]
    guidelines: Annotated[str, Field(max_length=200_000)] | None = None


class GuidelinesOut(BaseModel):
    version: int | None = Field(description="null where the project has no guidelines")
    html: str
    read: bool
    before_html: str | None = Field(description="what this rater read before, where it has changed since")
    consent_html: str | None = Field(description="what this rater must agree to before anything else")
    consent_hash: str | None = Field(description="of that text; agreeing brings it back")
    consented: bool
    warnings: dict[str, str] = Field(description="content warnings by tag, which a rater may opt out of")
    opted_out: list[str]


class GuidelineOut(BaseModel):
    version: int
    text: str = Field(description="Markdown")
    html: str


class GuidelinesIn(Strict):
    text: Annotated[str, Field(min_length=1, max_length=200_000)]


class GuidelineVersion(BaseModel):
    version: int


class ReadIn(Strict):
    version: int


class ConsentIn(Strict):
    agreed: Literal[True]
    consent_hash: Annotated[str, Field(max_length=64, description="as `guidelines` gave it, with the text")]


class OptOutIn(Strict):
    tags: list[Annotated[str, Field(max_length=200)]] = Field(max_length=1000)


@router.get("")
def projects(
    asker: AnyAsker,
    after: Annotated[int, Field(ge=0, le=LARGEST_ID)] = 0,
    limit: Annotated[int, Field(ge=1, le=200)] = 50,
) -> ProjectPage:
    """The projects that the asker reviews or owns, by id."""
    if asker.rights is not None and asker.rights <= {Right.RATE}:  # an export begins with a project's name, too
        raise Refused("forbidden", "This token carries no right to anything but rating.")
    with asker.database.read() as session:
        rows = service.reviewed_projects(session, asker.person_id, after=after, limit=limit + 1)
        progress = progress_of(session, [project.id for project, _ in rows])
        out = [_out(session, project, role, progress[project.id]) for project, role in rows]
    return ProjectPage(projects=out[:limit], after=out[limit - 1].id if len(out) > limit else None)


@router.post("", status_code=201)
def create(body: ProjectNew, asker: AnyAsker, response: Response) -> ProjectOut:
    """Make a project and own it. Who owns a project already may."""
    if asker.rights is not None and Right.MANAGE not in asker.rights:
        raise Refused("forbidden", "This token does not carry the right 'manage'.")
    with asker.database.write() as session:
        project = create_own_project(session, asker.person_id, body.name, body.guidelines, body)
        out = _out(session, project, "owner")
    say_version(response, out.version)
    return out


@router.get("/{project_id}")
def one(project_id: Id, asker: AnyAsker, response: Response) -> ProjectOut:
    """One project's settings."""
    with asker.reads(project_id, Right.REVIEW) as (session, member):
        project = session.get_one(Project, project_id)
        out = _out(session, project, member.role)
    say_version(response, out.version)
    return out


@router.patch("/{project_id}")
def change(
    project_id: Id,
    body: service.ProjectChange,
    asker: AnyAsker,
    response: Response,
    afterwards: BackgroundTasks,
    if_match: Annotated[str | None, Header()] = None,
) -> ProjectOut:
    """Change settings, close or open again. `If-Match` says which version of the project the change is made to."""
    with asker.writes(project_id, Right.MANAGE) as (session, member):
        project = service.change_project(session, project_id, body, version_of(if_match), by=member)
        out = _out(session, project, member.role)
    if body.sure is not None:
        afterwards.add_task(refit, asker.database, project_id)
    say_version(response, out.version)
    return out


@router.post("/{project_id}/guidelines", status_code=201)
def new_guidelines(project_id: Id, body: GuidelinesIn, asker: AnyAsker) -> GuidelineVersion:
    """A new version of the guidelines (Markdown), which every rater must read before going on."""
    with asker.writes(project_id, Right.MANAGE) as (session, member):
        version = service.new_guidelines(session, project_id, body.text, by=member)
    return GuidelineVersion(version=version)


@router.get("/{project_id}/guidelines/{version}")
def guideline(project_id: Id, version: Id, asker: AnyAsker) -> GuidelineOut:
    """One version of the guidelines, for owners and reviewers."""
    with asker.reads(project_id, Right.REVIEW) as (session, _):
        found = service.guideline_of(session, project_id, version)
    return GuidelineOut(version=found.version, text=found.text, html=to_html(found.text))


@router.get("/{project_id}/guidelines")
def guidelines(project_id: Id, asker: AnyAsker) -> GuidelinesOut:
    """What a rater must agree to and read before rating."""
    with asker.reads(project_id, Right.RATE) as (session, member):
        guideline = current_guideline(session, member.project_id)
        project = session.get_one(Project, project_id)
        before = None
        if guideline is not None and member.guideline not in (None, guideline.version):
            before = service.guideline_of(session, project_id, member.guideline).text
    return GuidelinesOut(
        version=guideline.version if guideline else None,
        html=to_html(guideline.text) if guideline else "",
        read=guideline is None or member.guideline == guideline.version,
        before_html=to_html(before) if before else None,
        consent_html=to_html(project.consent) if project.consent else None,
        consent_hash=consent_hash(project),
        consented=not project.consent or member.consent_hash == consent_hash(project),
        warnings=project.warnings,
        opted_out=member.opted_out,
    )


@router.post("/{project_id}/guidelines/read")
def guidelines_read(project_id: Id, body: ReadIn, asker: AnyAsker) -> GuidelineVersion:
    """Say that this rater has read this version of the guidelines."""
    with asker.writes(project_id, Right.RATE) as (session, member):
        if body.version != guideline_version(session, project_id):
            raise Refused("guidelines-first", "The guidelines have changed; read the new ones.")
        member.guideline = body.version
        note(session, "guidelines read", project=project_id, member=member.id, version=body.version)
    return GuidelineVersion(version=body.version)


@router.post("/{project_id}/consent", status_code=204)
def consent(project_id: Id, body: ConsentIn, asker: AnyAsker) -> None:
    """Say that this rater agrees to the project's consent text, which must be the one that they have read."""
    with asker.writes(project_id, Right.RATE) as (session, member):
        service.give_consent(session, member, body.consent_hash)


@router.put("/{project_id}/opt-out", status_code=204)
def opt_out(project_id: Id, body: OptOutIn, asker: AnyAsker) -> None:
    """Say of which tags with a content warning this rater does not want to see items."""
    with asker.writes(project_id, Right.RATE) as (session, member):
        service.opt_out(session, member, body.tags)


@router.get("/{project_id}/report")
def report(project_id: Id, asker: AnyAsker) -> dict[str, Any]:
    """How far the project is, how well raters agree, how reliable each one is. Only owners see who is who."""
    with asker.reads(project_id, Right.REVIEW) as (session, member):
        return project_report(session, session.get_one(Project, project_id), names=asker.may(member, Right.PEOPLE))


@router.get("/{project_id}/agreement")
def agreement(project_id: Id, asker: AnyAsker) -> dict[str, Any]:
    """The part of the report on how well raters agree."""
    with asker.reads(project_id, Right.REVIEW) as (session, _):
        return agreement_report(session, session.get_one(Project, project_id))


def _out(session: Session, project: Project, role: str, progress: Progress | None = None) -> ProjectOut:
    progress = progress or progress_of(session, [project.id])[project.id]
    return ProjectOut.model_validate(
        {
            **{name: getattr(project, name) for name in ProjectOut.model_fields if hasattr(project, name)},
            "role": role,
            "pay": project.pay if role == "owner" else None,
            "closed": project.closed_at is not None,
            "guideline": guideline_version(session, project.id),
            **progress._asdict(),
        }
    )
