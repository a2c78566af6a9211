"""Who somebody is here whom an OpenID Connect provider vouches for."""

import secrets
from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from annotate.services.links import join_as, join_as_new
from annotate.services.people import check_login
from annotate.services.projects import note
from annotate.services.refusals import Refused
from annotate.store.tables import Person
from preferences.errors import BadInput


def come_in(session: Session, claims: Mapping[str, Any], invitation: str | None) -> Person:
    """The person behind the claims of an ID token that was checked; with an invitation they join its project.

    Known is who came in this way before, or whose login is the address that the provider has verified, who is tied to
    the provider's account from then on. Raises Refused for anybody else without an invitation.
    """
    openid = f"{claims['iss']} {claims['sub']}"
    email = claims.get("email") if claims.get("email_verified") is True else None
    person = session.scalars(select(Person).where(Person.openid == openid)).one_or_none()
    if person is None and isinstance(email, str):
        person = _tie(session, openid, email)
    if person is not None:
        if invitation:
            join_as(session, invitation, person.id)
        return person
    if not invitation:
        raise Refused("forbidden", "Nobody here knows you yet; ask the owner of the project for an invitation link.")
    return join_as_new(session, invitation, login=_login(email), name=None, password_hash="", openid=openid)


def _tie(session: Session, openid: str, email: str) -> Person | None:
    """Tie the one person whose login is this address to the provider's account, or return None."""
    query = select(Person).where(func.lower(Person.login) == email.lower()).with_for_update()
    found = session.scalars(query).all()
    if len(found) != 1:
        return None
    if found[0].openid is not None:
        raise Refused("forbidden", "Your address belongs to somebody here who signs in with another account.")
    found[0].openid = openid
    note(session, "openid linked", project=None, person=found[0].id)
    session.flush()
    return found[0]


def _login(email: object) -> str:
    """A login for somebody new: their verified address, else made up, since they never type it."""
    try:
        check_login(str(email) if email else "")
    except BadInput:
        return f"openid-{secrets.token_hex(5)}"
    return str(email)
