"""Projects: create one, find one, change one; what raters must have read and agreed to."""

import hashlib
import time
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import Select, func, insert, select, update
from sqlalchemy.orm import Session

from annotate.services.refusals import Refused
from annotate.services.slots import open_all
from annotate.services.webhooks import announce
from annotate.store.tables import Audit, Guideline, Item, Member, Project, Question, Slot
from preferences.errors import BadInput

Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Tag = Annotated[str, Field(min_length=1, max_length=200)]
Name = Annotated[str, Field(min_length=1, max_length=100)]
Anchor = Annotated[str, Field(max_length=200)]


def _different(dimensions: "list[Dimension]") -> "list[Dimension]":
    if len({one.name for one in dimensions}) < len(dimensions):
        raise ValueError("two dimensions have the same name")
    return dimensions


def _two_or_none(models: list[str]) -> list[str]:
    if len(set(models)) < len(models) or len(models) == 1:
        raise ValueError("an arena takes two models or more, each once")
    return models


class Dimension(BaseModel):
    """What each response is rated on, in steps from 1; `anchors` are the words of each step, "" for none."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=40)]
    anchors: list[Anchor] = Field(min_length=2, max_length=7)


class Pay(BaseModel):
    """What a rater earns, for each hour of active time or for each answer."""

    model_config = ConfigDict(extra="forbid")

    amount: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="as in ISO 4217")]
    per: Literal["hour", "answer"]


class Adjustable(BaseModel):
    """What of a project can change once it is there; tables.Project says what each one means."""

    model_config = ConfigDict(extra="forbid")

    overlap: Annotated[int, Field(ge=1, le=1000)] = 1
    gold_rate: Annotated[float, Field(ge=0, le=0.5, allow_inf_nan=False)] = 0.1
    qualify: Annotated[int, Field(ge=0, le=1000)] = 0
    skills: list[Tag] = Field(default=[], max_length=1000)
    warnings: dict[Tag, Annotated[str, Field(min_length=1, max_length=2000)]] = Field(default={}, max_length=1000)
    consent: Annotated[str, Field(min_length=1, max_length=200_000)] | None = None
    dimensions: Annotated[list[Dimension], Field(max_length=10), AfterValidator(_different)] = []
    all_bad: bool = False
    rationale: Literal["off", "optional", "required"] = "off"
    edit: bool = False
    spans: bool = False
    mask: list[Name] = Field(default=[], max_length=200)
    practice: Annotated[int, Field(ge=0, le=1000)] = 3
    pay: Pay | None = None
    arena: Annotated[list[Name], Field(max_length=100), AfterValidator(_two_or_none)] = []
    sure: Annotated[float, Field(gt=0.5, lt=1, allow_inf_nan=False)] | None = None
    hold_back: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] | None = None


class ProjectSettings(Adjustable):
    """How a new project works."""

    strength: bool = True
    validation: Share = 0.1
    test: Share = 0.1
    simulated: bool = False


class ProjectChange(Adjustable):
    """Only what is given changes: `overlap` for items imported from then on; a changed `consent` is asked anew."""

    closed: bool = False


def create_project(
    session: Session, name: str, *, guidelines: str | None, settings: ProjectSettings, person: int | None = None
) -> Project:
    """Make a project; `guidelines` is Markdown, `person` the id of who makes it, None at the command line.

    Raises BadInput for what does not fit, and for a known name.
    """
    name = name.strip()
    if not name or len(name) > 100 or not name.isprintable():
        raise BadInput(f"project name {name!r}: give 1 to 100 printable characters")
    if settings.validation + settings.test >= 1:
        raise BadInput(
            f"--validation {settings.validation} and --test {settings.test} leave nothing to train on; lower one"
        )
    if guidelines is not None and not guidelines.strip():
        raise BadInput("the guidelines are empty; write what raters should look for, or leave --guidelines out")
    if session.scalar(select(Project).where(Project.name == name)) is not None:
        raise BadInput(f"project {name!r} is there already; choose another name, or go on with `annotate import`")
    project = Project(name=name, created_at=time.time(), **settings.model_dump())
    session.add(project)
    session.flush()
    if guidelines is not None:
        session.add(Guideline(project_id=project.id, version=1, text=guidelines))
    note(session, "project created", project=project.id, person=person)
    return project


def find_project(session: Session, name: str) -> Project:
    """The project of that name. Raises BadInput that lists the known ones."""
    project = session.scalar(select(Project).where(Project.name == name.strip()))
    if project is None:
        known = session.scalars(select(Project.name).order_by(Project.name)).all()
        hint = f"there are {', '.join(known)}" if known else "`annotate project create NAME` makes one"
        raise BadInput(f"no project {name!r} in this database; {hint}")
    return project


class Progress(NamedTuple):
    """How far a project is, by counting alone: items without gold, slots, questions without a reply."""

    items: int
    slots: int
    filled: int
    open_questions: int


def progress_of(session: Session, projects: Sequence[int]) -> dict[int, Progress]:
    """{project id: how far it is}."""

    def counts(query: Select) -> dict[int, int]:
        return {project: count for project, count in session.execute(query)}

    of_item = Item.project_id.in_(projects)
    items = counts(select(Item.project_id, func.count()).where(of_item, Item.gold.is_(None)).group_by(Item.project_id))
    by_project = select(Slot.project_id, func.count()).where(Slot.project_id.in_(projects)).group_by(Slot.project_id)
    slots, filled = counts(by_project), counts(by_project.where(Slot.filled.is_(True)))
    asked = select(Item.project_id, func.count()).select_from(Question).join(Item).where(of_item)
    questions = counts(asked.where(Question.replied_at.is_(None)).group_by(Item.project_id))
    found = (items, slots, filled, questions)
    return {number: Progress(*(one.get(number, 0) for one in found)) for number in projects}


def reviewed_projects(session: Session, person_id: int, *, after: int, limit: int) -> list[tuple[Project, str]]:
    """Projects that a person reviews or owns, with the role, by id from above `after`."""
    query = (
        select(Project, Member.role)
        .join(Member)
        .where(Member.person_id == person_id, Member.removed_at.is_(None), Member.role != "rater", Project.id > after)
        .order_by(Project.id)
        .limit(limit)
    )
    return [(project, role) for project, role in session.execute(query)]


def change_project(
    session: Session, project_id: int, change: ProjectChange, version: int | None, *, by: Member | None
) -> Project:
    """Change what `change` gives. Raises Refused "wrong-version" if another version stands than `version`."""
    project = session.scalars(select(Project).where(Project.id == project_id).with_for_update(key_share=True)).one()
    if version is not None and version != project.version:
        raise Refused("wrong-version", "Somebody has changed this project; read it again.", version=project.version)
    given = change.model_dump(exclude_unset=True)
    if "arena" in given and bool(given["arena"]) != bool(project.arena):
        raise Refused("bad-input", "A project is an arena from the beginning or never; make another project.")
    closed = given.pop("closed", None)
    if closed is not None and closed != (project.closed_at is not None):
        project.closed_at = time.time() if closed else None
    if given.get("qualify") and not project.qualify:  # until now nobody had anything to pass
        session.execute(update(Member).where(Member.project_id == project_id).values(qualified_at=None))
    if "sure" in given and given["sure"] is None and project.sure is not None:
        open_all(session, project_id)
    for name, value in given.items():
        setattr(project, name, value)
    project.version += 1
    detail = {**given, **({} if closed is None else {"closed": closed})}
    note(session, "project changed", project=project.id, member=by.id if by else None, **detail)
    announce(session, project.id, "project.changed", changed=sorted(detail))  # the names, without the texts
    session.flush()
    return project


def new_guidelines(session: Session, project_id: int, text: str, *, by: Member | None) -> int:
    """Add a version of the guidelines and return its number. Raises BadInput if they are empty."""
    if not text.strip():
        raise BadInput("the guidelines are empty; write what raters should look for")
    session.scalars(select(Project.id).where(Project.id == project_id).with_for_update(key_share=True)).one()
    version = (guideline_version(session, project_id) or 0) + 1
    session.add(Guideline(project_id=project_id, version=version, text=text))
    note(session, "guidelines changed", project=project_id, member=by.id if by else None, version=version)
    session.flush()
    return version


def lock_project(session: Session, project: Project) -> None:
    """Let imports and exports of one project take turns; raters don't wait for them (PostgreSQL only)."""
    session.execute(select(Project.id).where(Project.id == project.id).with_for_update(key_share=True))


def current_guideline(session: Session, project_id: int) -> Guideline | None:
    """The newest version of a project's guidelines, or None where it has none."""
    query = select(Guideline).where(Guideline.project_id == project_id).order_by(Guideline.version.desc()).limit(1)
    return session.scalar(query)


def guideline_of(session: Session, project_id: int, version: int) -> Guideline:
    """One version of a project's guidelines. Raises Refused if there is none of that number."""
    query = select(Guideline).where(Guideline.project_id == project_id, Guideline.version == version)
    found = session.scalars(query).one_or_none()
    if found is None:
        raise Refused("not-found", "There are no guidelines of this version.")
    return found


def guideline_version(session: Session, project_id: int) -> int | None:
    return session.scalar(select(func.max(Guideline.version)).where(Guideline.project_id == project_id))


def consent_hash(project: Project) -> str | None:
    """What a member's consent is compared with: SHA-256 of the text as it is now, None where none is asked for."""
    return hashlib.sha256(project.consent.encode()).hexdigest() if project.consent else None


def give_consent(session: Session, member: Member, text: str) -> None:
    """The member agrees to the consent text with the hash `text`. Raises Refused if it is another one by now."""
    project = session.get_one(Project, member.project_id)
    if text != consent_hash(project):
        raise Refused("consent-first", "The text has changed; read what you are asked to agree to again.")
    member.consent_hash, member.consented_at = text, time.time()
    note(session, "consented", project=project.id, member=member.id, text=member.consent_hash)


def opt_out(session: Session, member: Member, tags: list[str]) -> None:
    """The member does not want to see items with these tags. Raises Refused for a tag without a content warning."""
    known = session.get_one(Project, member.project_id).warnings
    for tag in tags:
        if tag not in known:
            raise Refused("bad-input", f"There is no content warning for {tag!r}, so nothing to opt out of.")
    member.opted_out = sorted(set(tags))
    member.version += 1
    note(session, "opted out", project=member.project_id, member=member.id)  # of what, may say who somebody is
    session.flush()


def comes_first(session: Session, project: Project, member: Member) -> Refused | None:
    """What a rater must do before the next item, as the refusal of that item; None if nothing."""
    if project.consent and member.consent_hash != consent_hash(project):
        return Refused("consent-first", "Read what you are asked to agree to first.")
    if guideline_version(session, project.id) not in (None, member.guideline):
        return Refused("guidelines-first", "Read the guidelines first.")
    return None


def note(
    session: Session,
    action: str,
    *,
    project: int | None,
    member: int | None = None,
    person: int | None = None,
    **detail: Any,
) -> None:
    """Write an audit entry in the caller's transaction. `detail` must not say who somebody is."""
    values = {"project_id": project, "member_id": member, "person_id": person, "at": time.time()}
    session.execute(insert(Audit).values(**values, action=action, detail=detail))
