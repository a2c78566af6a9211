"""Personal API tokens: shown once, kept as a hash, limited to rights, expiring, revocable."""

import hashlib
import secrets
import time
from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from annotate.services.rights import Right
from annotate.store.database import Database
from annotate.store.tables import Person, Token

PREFIX = "concord_"  # so that a token that leaks can be found by scanners
USED_EVERY = 60.0  # seconds: the time of last use is not written more often


class Holder(NamedTuple):
    """Whom a token stands for, and the rights that it carries at most."""

    person_id: int
    login: str
    rights: frozenset[Right]


def make_token(
    session: Session, person_id: int, name: str, rights: Iterable[Right], expires_at: float | None
) -> tuple[Token, str]:
    """Store a new token's hash and return (the row, the token), which nobody can see again."""
    token = PREFIX + secrets.token_urlsafe(32)
    row = Token(
        person_id=person_id,
        name=name,
        token_hash=_hash(token),
        rights=sorted(rights),
        created_at=time.time(),
        expires_at=expires_at,
    )
    session.add(row)
    session.flush()
    return row, token


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
