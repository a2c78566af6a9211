"""Projects: create one, find one."""

import time
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from annotate.store.tables import Audit, Guideline, Project
from preferences.errors import BadInput


def create_project(
    session: Session,
    name: str,
    *,
    guidelines: str | None,
    overlap: int,
    strength: bool,
    validation: float,
    test: float,
    simulated: bool,
) -> Project:
    """Make a project; `guidelines` is Markdown, `validation` and `test` are shares of the items. Raises BadInput."""
    name = name.strip()
    if not name or len(name) > 100 or not name.isprintable():
        raise BadInput(f"project name {name!r}: give 1 to 100 printable characters")
    if not 1 <= overlap <= 1000:
        raise BadInput(f"--overlap {overlap}: give how many raters answer each item, from 1 to 1000")
    for option, value in (("--validation", validation), ("--test", test)):
        if not 0 <= value < 1:
            raise BadInput(f"{option} {value}: give a share of the items from 0 to below 1, such as 0.1")
    if validation + test >= 1:
        raise BadInput(f"--validation {validation} and --test {test} leave nothing to train on; lower one of them")
    if guidelines is not None and not guidelines.strip():
        raise BadInput("the guidelines are empty; write what raters should look for, or leave --guidelines out")
    if session.scalar(select(Project).where(Project.name == name)) is not None:
        raise BadInput(f"project {name!r} is there already; choose another name, or go on with `annotate import`")
    project = Project(
        name=name,
        overlap=overlap,
        strength=strength,
        validation=validation,
        test=test,
        simulated=simulated,
        created_at=time.time(),
    )
    session.add(project)
    session.flush()
    if guidelines is not None:
        session.add(Guideline(project_id=project.id, version=1, text=guidelines))
    note(session, "project created", project=project.id, name=name)
    return project


def find_project(session: Session, name: str) -> Project:
    """The project of that name. Raises BadInput that lists the known ones."""
    project = session.scalar(select(Project).where(Project.name == name.strip()))
    if project is None:
        known = session.scalars(select(Project.name).order_by(Project.name)).all()
        hint = f"there are {', '.join(known)}" if known else "`annotate project create NAME` makes one"
        raise BadInput(f"no project {name!r} in this database; {hint}")
    return project


def lock_project(session: Session, project: Project) -> None:
    """Let imports and exports of one project take turns; raters don't wait for them (PostgreSQL only)."""
    session.execute(select(Project.id).where(Project.id == project.id).with_for_update(key_share=True))


def current_guideline(session: Session, project_id: int) -> Guideline | None:
    """The newest version of a project's guidelines, or None where it has none."""
    query = select(Guideline).where(Guideline.project_id == project_id).order_by(Guideline.version.desc()).limit(1)
    return session.scalar(query)


def guideline_version(session: Session, project_id: int) -> int | None:
    return session.scalar(select(func.max(Guideline.version)).where(Guideline.project_id == project_id))


def note(session: Session, action: str, *, project: int | None, member: int | None = None, **detail: Any) -> None:
    """Write an audit entry in the caller's transaction."""
    session.add(Audit(project_id=project, member_id=member, at=time.time(), action=action, detail=detail))
