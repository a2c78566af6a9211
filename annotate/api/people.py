"""The people of a project, for its owner: who they are, what they may do, inviting, removing and erasing them."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel, Field

from annotate.api.problems import PROBLEMS
from annotate.api.security import AnyAsker
from annotate.api.shapes import After, Id, Limit, Strict
from annotate.api.versions import say_version, version_of
from annotate.services import links, members, privacy
from annotate.services.links import NewLink
from annotate.services.members import Known, MemberChange, Role
from annotate.services.projects import Tag, note
from annotate.services.rights import Right
from annotate.store.access import Link

router = APIRouter(prefix="/api/v1/projects/{project_id}", tags=["people"], responses=PROBLEMS)
LONGEST_HOURS = 24 * 90


class MemberOut(BaseModel):
    """A member as only owners see them. `version` is also the ETag, which a change must bring back."""

    id: int
    rater: str = Field(description="the login, or the id that an import gave; the pseudonym of who was erased")
    login: str | None = Field(description="null for a rater without a login")
    name: str | None
    pseudonym: str = Field(description="what everybody else sees")
    role: Role
    skills: list[str]
    answers: int = Field(description="items answered, imported answers and checks included")
    qualified_at: float | None
    consented_at: float | None
    removed_at: float | None
    version: int


class MemberPage(BaseModel):
    people: list[MemberOut]
    after: int | None = Field(description="give it as `after` for the next page; null on the last one")


class InvitationIn(Strict):
    role: Role = "rater"
    skills: list[Tag] = Field(default=[], max_length=1000)
    expires_in_hours: Annotated[float, Field(gt=0, le=LONGEST_HOURS)] = 7 * 24.0


class InvitationOut(BaseModel):
    id: int
    role: Role
    skills: list[str]
    created_at: float
    expires_at: float
    used_at: float | None


class InvitationMade(InvitationOut):
    path: str = Field(description="the link without the server's address; shown this once")
    url: str = Field(description="the link, with the server's address as this request has it; shown this once")


class InvitationPage(BaseModel):
    invitations: list[InvitationOut]
    after: int | None = Field(description="give it as `after` for the next page; null on the last one")


class PasswordLinkIn(Strict):
    expires_in_hours: Annotated[float, Field(gt=0, le=LONGEST_HOURS)] = 24.0


class PasswordLink(BaseModel):
    expires_at: float
    path: str = Field(description="the link without the server's address; shown this once")
    url: str = Field(description="the link, with the server's address as this request has it; shown this once")


class Erased(BaseModel):
    pseudonym: str = Field(description="under which the ranks stay")
    scrubbed: bool = Field(
        description="whether the database's files hold no trace any more; false on PostgreSQL, which overwrites"
        " them in its own time, and where SQLite could not rewrite its file: then erase once more"
    )


@router.get("/people")
def people(project_id: Id, asker: AnyAsker, after: After = 0, limit: Limit = 50) -> MemberPage:
    """Everybody with a part in the project, by id; those who were removed, too."""
    with asker.reads(project_id, Right.PEOPLE) as (session, _):
        rows = members.members_of(session, project_id, after=after, limit=limit + 1)
    out = [_out(row) for row in rows]
    return MemberPage(people=out[:limit], after=out[limit - 1].id if len(out) > limit else None)


@router.get("/people/{member_id}")
def person(project_id: Id, member_id: Id, asker: AnyAsker, response: Response) -> MemberOut:
    """One of them."""
    with asker.reads(project_id, Right.PEOPLE) as (session, _):
        out = _out(members.member_of(session, project_id, member_id))
    say_version(response, out.version)
    return out


@router.patch("/people/{member_id}")
def change_person(
    project_id: Id,
    member_id: Id,
    body: MemberChange,
    asker: AnyAsker,
    response: Response,
    if_match: Annotated[str | None, Header()] = None,
) -> MemberOut:
    """Change role or skills, admit to the real items, remove or bring back. `If-Match` names the version changed."""
    with asker.writes(project_id, Right.PEOPLE) as (session, by):
        known = members.change_member(session, project_id, member_id, body, version_of(if_match), by=by)
        out = _out(known)
    say_version(response, out.version)
    return out


@router.post("/people/{member_id}/password-link", status_code=201)
def password_link(
    project_id: Id, member_id: Id, body: PasswordLinkIn, asker: AnyAsker, request: Request
) -> PasswordLink:
    """A link with which somebody who forgot their password sets a new one. Refused where they are elsewhere, too."""
    with asker.writes(project_id, Right.PEOPLE) as (session, by):
        made = links.password_link(session, project_id, member_id, hours=body.expires_in_hours, by=by)
    return PasswordLink(expires_at=made.link.expires_at, path=made.path, url=_url(request, made))


@router.get("/people/{member_id}/personal-data")
def personal_data(project_id: Id, member_id: Id, asker: AnyAsker) -> dict[str, Any]:
    """Everything that this project stores about one of them; the account, too, if it has no part elsewhere."""
    with asker.writes(project_id, Right.PEOPLE) as (session, by):
        data = privacy.data_of_member(session, members.member_of(session, project_id, member_id).member)
        note(session, "personal data read", project=project_id, member=by.id, of=member_id)
    return data


@router.delete("/people/{member_id}/identity")
def erase(project_id: Id, member_id: Id, asker: AnyAsker) -> Erased:
    """Erase who somebody is, and their free text; their ranks stay under a new pseudonym. There is no way back."""
    with asker.writes(project_id, Right.PEOPLE) as (session, by):
        pseudonym = privacy.erase(session, project_id, member_id, by=by)
    return Erased(pseudonym=pseudonym, scrubbed=privacy.scrub(asker.database))


@router.post("/invitations", status_code=201)
def invite(project_id: Id, body: InvitationIn, asker: AnyAsker, request: Request) -> InvitationMade:
    """A link with which one person may join the project."""
    with asker.writes(project_id, Right.PEOPLE) as (session, by):
        made = links.invite(session, project_id, role=body.role, skills=body.skills, hours=body.expires_in_hours, by=by)
    return InvitationMade.model_validate({**_invitation(made.link), "path": made.path, "url": _url(request, made)})


@router.get("/invitations")
def invitations(project_id: Id, asker: AnyAsker, after: After = 0, limit: Limit = 50) -> InvitationPage:
    """The invitations of the last month and those still open, without the links, which nobody can see again."""
    with asker.reads(project_id, Right.PEOPLE) as (session, _):
        rows = links.invitations_of(session, project_id, after=after, limit=limit + 1)
    out = [InvitationOut.model_validate(_invitation(row)) for row in rows]
    return InvitationPage(invitations=out[:limit], after=out[limit - 1].id if len(out) > limit else None)


@router.delete("/invitations/{invitation_id}", status_code=204)
def revoke(project_id: Id, invitation_id: Id, asker: AnyAsker) -> None:
    """Take back an invitation that nobody has used."""
    with asker.writes(project_id, Right.PEOPLE) as (session, by):
        links.revoke_invitation(session, project_id, invitation_id, by=by)


def _out(known: Known) -> MemberOut:
    own = {name: getattr(known.member, name) for name in MemberOut.model_fields if hasattr(known.member, name)}
    who = {"login": known.person and known.person.login, "name": known.person and known.person.name}
    return MemberOut.model_validate({**own, **who, "answers": known.answers})


def _invitation(link: Link) -> dict[str, Any]:
    return {name: getattr(link, name) for name in InvitationOut.model_fields}


def _url(request: Request, made: NewLink) -> str:
    return f"{str(request.base_url).rstrip('/')}{made.path}"
