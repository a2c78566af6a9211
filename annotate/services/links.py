"""Links that an owner hands out: to join a project, or to set a new password. Each is good for one use, for a while.

A link carries a random token with a signature by the server's key, so that a made-up one is refused without a look
at the database; the database keeps the token's SHA-256.
"""

import base64
import hashlib
import hmac
import secrets
import time
from typing import Literal, NamedTuple

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from annotate.services.members import lock_owners, member_of, owned_projects, part_elsewhere
from annotate.services.people import check_login, give_part, new_person, set_password
from annotate.services.projects import note
from annotate.services.refusals import Refused
from annotate.services.secrets import signing_key
from annotate.store.access import Link
from annotate.store.tables import Member, Person

Purpose = Literal["join", "password"]
KEPT_SECONDS = 30 * 24 * 3600.0  # after its end; until then a page can say what became of a link


class NewLink(NamedTuple):
    """`path` holds the token, which nobody can see again."""

    link: Link
    path: str


def invite(
    session: Session, project_id: int, *, role: str, skills: list[str], hours: float, by: Member | None
) -> NewLink:
    """Make a link with which one person may join the project."""
    lock_owners(session, project_id, by)
    made = _make(session, "join", project_id, role=role, skills=skills, hours=hours, person_id=None)
    note(session, "invited", project=project_id, member=by.id if by else None, link=made.link.id, role=role)
    return made


def invitations_of(session: Session, project_id: int, *, after: int, limit: int) -> list[Link]:
    """A project's invitations by id, from above `after`."""
    query = select(Link).where(Link.project_id == project_id, Link.purpose == "join", Link.id > after)
    return list(session.scalars(query.order_by(Link.id).limit(limit)))


def revoke_invitation(session: Session, project_id: int, link_id: int, *, by: Member | None) -> None:
    """Void a link that has not been used. Raises Refused if it has been, or is not there."""
    link = session.get(Link, link_id, with_for_update=True)
    if link is None or link.project_id != project_id or link.purpose != "join":
        raise Refused("not-found", "There is no such invitation in this project.")
    if link.used_at is not None:
        raise Refused("link-used", "Somebody has joined with this link; remove that person instead.")
    session.delete(link)
    note(session, "invitation revoked", project=project_id, member=by.id if by else None, link=link_id)


def password_link(session: Session, project_id: int, member_id: int, *, hours: float, by: Member) -> NewLink:
    """Make a link with which a member may set a new password; earlier ones are void.

    Raises Refused "part-elsewhere" where the person has, or had, a part in a project that `by` does not own: the owner
    could enter there with it.
    """
    lock_owners(session, project_id, by)
    member = member_of(session, project_id, member_id).member
    if member.person_id is None:
        raise Refused("bad-input", "This rater has no login, so there is no password to set.")
    assert by.person_id is not None
    session.scalars(select(Person.id).where(Person.id == member.person_id).with_for_update()).one()
    if part_elsewhere(session, member.person_id, owned_projects(session, by.person_id)):
        raise Refused(
            "part-elsewhere",
            "This person has a part in projects that you don't own, so only who runs the server can set a password.",
        )
    session.execute(delete(Link).where(Link.person_id == member.person_id, Link.used_at.is_(None)))
    made = _make(session, "password", project_id, role=member.role, skills=[], hours=hours, person_id=member.person_id)
    note(session, "password link made", project=project_id, member=by.id, of=member.id)
    return made


def find_link(session: Session, token: str, purpose: Purpose) -> Link:
    """The link that a token opens, looking only. Raises Refused if it is unknown, used up or over."""
    nonce, _, signature = token.partition(".")
    if not hmac.compare_digest(_sign(session, purpose, nonce).encode(), signature.encode()):
        raise Refused("not-found", "This is no link of this server; copy the whole of it from the message.")
    link = session.scalars(select(Link).where(Link.token_hash == _hash(token), Link.purpose == purpose)).one_or_none()
    if link is None:
        raise Refused("link-expired", "This link was taken back or has expired; ask for a new one.")
    if link.used_at is not None:
        raise Refused("link-used", "This link has been used, and works only once; ask for a new one.")
    if link.expires_at <= time.time():
        raise Refused("link-expired", "This link has expired; ask for a new one.")
    return link


def join_as_new(
    session: Session, token: str, *, login: str, name: str | None, password_hash: str, openid: str | None = None
) -> Person:
    """Use a link up: a new person, who joins. Raises Refused for a link that is over, or a login in use.

    Whoever has a link chooses their login, so it must not look like somebody else's: logins with "@" come from owners
    or from an OpenID provider only, since that is what people are recognised by when they first sign in there.
    """
    check_login(login)
    if "@" in login and openid is None:
        raise Refused("bad-input", "Choose a login without an @; it is not your address.")
    link = _use(session, token, "join")
    person = new_person(session, login, name=name, password_hash=password_hash, openid=openid)
    _join(session, link, person)
    return person


def join_as(session: Session, token: str, person_id: int) -> Member:
    """Use a link up: somebody who has a login joins. Raises Refused for a link that is over, or who is in already."""
    link = _use(session, token, "join")
    member = session.query(Member).filter_by(project_id=link.project_id, person_id=person_id).one_or_none()
    if member is not None and member.removed_at is not None:
        raise Refused("forbidden", "You were removed from this project; only its owner can bring you back.")
    if member is not None:
        raise Refused("already-there", "You are in this project already; the link is still good for somebody else.")
    return _join(session, link, session.get_one(Person, person_id))


def reset_password(session: Session, token: str, password_hash: str) -> Person:
    """Use a link up: set a new password and end all login sessions. Raises Refused for a link that is over."""
    link = _use(session, token, "password")
    assert link.person_id is not None
    set_password(session, link.person_id, password_hash)
    return session.get_one(Person, link.person_id)


# --- inside ------------------------------------------------------------------------------------------------------


def _make(
    session: Session,
    purpose: Purpose,
    project_id: int,
    *,
    role: str,
    skills: list[str],
    hours: float,
    person_id: int | None,
) -> NewLink:
    nonce, now = secrets.token_urlsafe(24), time.time()
    token = f"{nonce}.{_sign(session, purpose, nonce)}"
    session.execute(delete(Link).where(Link.expires_at < now - KEPT_SECONDS))
    link = Link(
        purpose=purpose,
        project_id=project_id,
        role=role,
        skills=sorted(set(skills)),
        person_id=person_id,
        token_hash=_hash(token),
        created_at=now,
        expires_at=now + hours * 3600,
    )
    session.add(link)
    session.flush()
    return NewLink(link, f"/{purpose}/{token}")


def _use(session: Session, token: str, purpose: Purpose) -> Link:
    """Mark a link as used, which only one transaction can. Raises Refused as `find_link`."""
    link = find_link(session, token, purpose)
    used = update(Link).where(Link.id == link.id, Link.used_at.is_(None)).values(used_at=time.time())
    if session.scalar(used.returning(Link.id)) is None:
        raise Refused("link-used", "This link has been used, and works only once; ask for a new one.")
    return link


def _join(session: Session, link: Link, person: Person) -> Member:
    member = give_part(session, link.project_id, person, role=link.role, skills=link.skills)
    note(session, "joined", project=link.project_id, member=member.id, link=link.id, role=link.role)
    return member


def _sign(session: Session, purpose: Purpose, nonce: str) -> str:
    digest = hmac.digest(signing_key(session), f"link {purpose} {nonce}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest[:18]).decode()


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
