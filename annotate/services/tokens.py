"""Personal API tokens: shown once, kept as a hash, limited to rights, expiring, revocable."""

import hashlib
import secrets
import time
from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session

from annotate.services.projects import note
from annotate.services.refusals import Refused
from annotate.services.rights import Right
from annotate.store.access import Token
from annotate.store.database import Database
from annotate.store.tables import Person
from preferences.errors import BadInput

PREFIX = "concord_"  # so that a token that leaks can be found by scanners
MOST = 100  # tokens of one person
USED_EVERY = 60.0  # seconds: the time of last use is not written more often


class Holder(NamedTuple):
    """Whom a token stands for, and the rights that it carries at most."""

    person_id: int
    login: str
    rights: frozenset[Right]


def make_token(
    session: Session, person_id: int, name: str, rights: Collection[Right], expires_at: float | None
) -> tuple[Token, str]:
    """Store a new token's hash and return (the row, the token), which nobody can see again.

    Raises BadInput for a name that does not fit, for no right, or for a person who has too many.
    """
    if not name.strip() or len(name) > 100 or not name.isprintable():
        raise BadInput(f"token name {name[:100]!r}: give 1 to 100 printable characters, such as what will use it")
    if not rights:
        raise BadInput(f"a token without a right is of no use; the rights are {', '.join(Right)}")
    if session.query(Token).filter_by(person_id=person_id).count() >= MOST:
        raise BadInput(f"{MOST} tokens are the most that one person can have; revoke one that is not used")
    token = PREFIX + secrets.token_urlsafe(32)
    row = Token(
        person_id=person_id,
        name=name.strip(),
        token_hash=_hash(token),
        rights=sorted(set(rights)),
        created_at=time.time(),
        expires_at=expires_at,
    )
    session.add(row)
    session.flush()
    note(session, "token made", project=None, person=person_id, token=row.id, rights=row.rights)
    return row, token


def tokens_of(session: Session, person_id: int) -> list[Token]:
    """A person's tokens, the oldest first; those that have expired, too."""
    return list(session.scalars(select(Token).where(Token.person_id == person_id).order_by(Token.id)))


def revoke_token(session: Session, person_id: int, token_id: int) -> None:
    """Delete one of a person's tokens; it is worth nothing from then on. Raises Refused where there is no such one."""
    gone = delete(Token).where(Token.id == token_id, Token.person_id == person_id).returning(Token.id)
    if session.scalar(gone) is None:
        raise Refused("not-found", "You have no such token.")
    note(session, "token revoked", project=None, person=person_id, token=token_id)


def token_holder(database: Database, token: str) -> Holder | None:
    """Whom a token stands for now; None if it was never made, is revoked, or has expired."""
    now = time.time()
    query = (
        select(Token.id, Token.used_at, Token.rights, Person.id, Person.login)
        .join(Person, Person.id == Token.person_id)
        .where(Token.token_hash == _hash(token), or_(Token.expires_at.is_(None), Token.expires_at > now))
    )
    with database.read() as session:
        row = session.execute(query).first()
    if row is None:
        return None
    number, used_at, rights, person_id, login = row
    if used_at is None or used_at < now - USED_EVERY:
        with database.write() as session:
            session.execute(update(Token).where(Token.id == number).values(used_at=now))
    return Holder(person_id, login, frozenset(Right(right) for right in rights))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
