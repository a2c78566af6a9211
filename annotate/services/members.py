"""The members of a project as its owners see and change them. Somebody always owns a project."""

import time
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from annotate.services.projects import Tag, note
from annotate.services.refusals import Refused
from annotate.services.rights import MAY, Right
from annotate.store.access import Link
from annotate.store.tables import Answer, Assignment, Member, Person, Project, Slot
from preferences.errors import BadInput

Role = Literal["rater", "reviewer", "owner"]


class MemberChange(BaseModel):
    """Only what is given changes. `qualified` lets a rater rate real items without, or sends them back to, training."""

    model_config = ConfigDict(extra="forbid")

    role: Role = "rater"
    skills: list[Tag] = Field(default=[], max_length=1000)
    qualified: bool = False
    removed: bool = False


class Known(NamedTuple):
    """A member, the person behind it (None for a rater that an import names), and how many items they answered."""

    member: Member
    person: Person | None
    answers: int


def members_of(session: Session, project_id: int, *, after: int, limit: int) -> list[Known]:
    """A project's members by id, from above `after`; those who were removed, too."""
    query = select(Member, Person).outerjoin(Person).where(Member.project_id == project_id, Member.id > after)
    rows = session.execute(query.order_by(Member.id).limit(limit)).all()
    counted = select(Answer.member_id, func.count()).where(
        Answer.member_id.in_([member.id for member, _ in rows]), Answer.revision == 1
    )
    answers: dict[int, int] = {member: count for member, count in session.execute(counted.group_by(Answer.member_id))}
    return [Known(member, person, answers.get(member.id, 0)) for member, person in rows]


def member_of(session: Session, project_id: int, member_id: int) -> Known:
    """One member. Raises Refused if the project has none of that id."""
    found = members_of(session, project_id, after=member_id - 1, limit=1)
    if not found or found[0].member.id != member_id:
        raise Refused("not-found", "There is no such person in this project.")
    return found[0]


def member_called(session: Session, project: Project, rater: str) -> Member:
    """The member with that login, imported id or pseudonym. Raises BadInput if the project has none."""
    named = or_(Member.rater == rater, Member.pseudonym == rater)
    member = session.scalars(select(Member).where(Member.project_id == project.id, named)).first()
    if member is None:
        raise BadInput(
            f"nobody in project {project.name!r} is called {rater!r}; `annotate people list` names everybody"
        )
    return member


def change_member(
    session: Session, project_id: int, member_id: int, change: MemberChange, version: int | None, *, by: Member | None
) -> Known:
    """Change what `change` gives; `version` None overwrites whichever stands. `by` is None at the command line.

    Raises Refused "wrong-version" if another version stands, "last-owner" if nobody would own the project any more.
    """
    lock_owners(session, project_id, by)
    member = member_of(session, project_id, member_id).member
    session.refresh(member, with_for_update=True)
    if version is not None and version != member.version:
        raise Refused("wrong-version", "Somebody has changed this person; read them again.", version=member.version)
    given = change.model_dump(exclude_unset=True)
    now = time.time()

    def tell(action: str, **detail: Any) -> None:
        note(session, action, project=project_id, member=by.id if by else None, of=member.id, **detail)

    was_owner = is_active_owner(member)
    if "role" in given and change.role != member.role:
        if member.person_id is None:
            raise Refused("bad-input", "Without a login this rater can't have another role; invite them first.")
        member.role = change.role
        tell("role changed", role=change.role)
    if "skills" in given and sorted(set(change.skills)) != member.skills:
        member.skills = sorted(set(change.skills))
        tell("skills changed", skills=member.skills)
    if "qualified" in given and change.qualified != (member.qualified_at is not None):
        member.qualified_at = now if change.qualified else None
        member.training_since = member.training_since if change.qualified else now
        tell("admitted" if change.qualified else "sent back to training")
    if "removed" in given and change.removed != (member.removed_at is not None):
        if not change.removed and member.person_id is None and member.rater == member.pseudonym:
            raise Refused("bad-input", "Who was erased can't come back; invite them anew.")
        member.removed_at = now if change.removed else None
        tell("removed" if change.removed else "brought back")
    member.version += 1
    session.flush()
    if was_owner and not is_active_owner(member):
        lose_ownership(session, member)
    if member.removed_at is not None or Right.RATE not in MAY[member.role]:
        free_leases(session, member)
    return member_of(session, project_id, member_id)


def lock_owners(session: Session, project_id: int, by: Member | None) -> None:
    """Let changes of one project's members take turns, and look again whether `by` still may make them."""
    session.scalars(select(Project.id).where(Project.id == project_id).with_for_update(key_share=True)).one()
    if by is not None:
        session.refresh(by)
        if by.removed_at is not None or Right.PEOPLE not in MAY[by.role]:
            raise Refused("forbidden", "You may not do this here any more.")


def is_active_owner(member: Member) -> bool:
    return member.role == "owner" and member.person_id is not None and member.removed_at is None


def lose_ownership(session: Session, member: Member) -> None:
    """Called when a member, as it is stored by now, has stopped owning the project.

    All open links of the project are void then: the former owner may know one that makes an owner. Raises Refused
    "last-owner" if nobody else owns it.
    """
    owners = select(func.count()).where(
        Member.project_id == member.project_id,
        Member.role == "owner",
        Member.person_id.is_not(None),
        Member.removed_at.is_(None),
    )
    if not session.scalar(owners):
        raise Refused("last-owner", "Nobody else owns this project; make another person its owner first.")
    session.execute(delete(Link).where(Link.project_id == member.project_id, Link.used_at.is_(None)))


def free_leases(session: Session, member: Member) -> None:
    """Hand the items that a member is at work on back to the others, without waiting for the leases to end."""
    theirs = select(Assignment.id).where(Assignment.member_id == member.id, Assignment.state == "open")
    session.execute(update(Slot).where(Slot.assignment_id.in_(theirs)).values(leased_until=None))


def part_elsewhere(session: Session, person_id: int, projects: Sequence[int]) -> bool:
    """Whether a person has, or had, a part in a project besides these."""
    query = select(Member.id).where(Member.person_id == person_id, Member.project_id.not_in(projects)).limit(1)
    return session.scalar(query) is not None


def owned_projects(session: Session, person_id: int) -> list[int]:
    owned = select(Member.project_id).where(
        Member.person_id == person_id, Member.role == "owner", Member.removed_at.is_(None)
    )
    return list(session.scalars(owned))
