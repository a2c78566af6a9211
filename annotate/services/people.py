"""People: who may log in, what part they have in a project, and login sessions."""

import hashlib
import re
import secrets
import time
from functools import cache
from typing import NamedTuple

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from annotate.services.projects import ProjectSettings, create_project, note
from annotate.services.refusals import Refused
from annotate.store.database import Database
from annotate.store.tables import FailedLogin, Login, Member, Person, Project
from preferences.errors import BadInput

LOGIN_SECONDS = 14 * 24 * 3600.0
THROTTLE_FAILURES, THROTTLE_SECONDS = 10, 600.0
SHORTEST_PASSWORD = 8

_hasher = PasswordHasher()


class Throttled(Exception):
    """Too many failed logins; `seconds` says how long to wait."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Visitor(NamedTuple):
    """Who is behind a request, from the login session in the database."""

    person_id: int
    login: str
    csrf_token: str
    session_id: int


def add_person(
    session: Session, project: Project, login: str, *, role: str, name: str | None, password: str | None
) -> Member:
    """Give a person a part in a project; a login that is new to the database needs `password`.

    A rater that an import named `login` becomes this person. Raises BadInput for a bad login or password, for
    somebody who is in the project already, and for a password for a login that has one.
    """
    if not re.fullmatch(r"[\w.@+-]{1,64}", login):
        raise BadInput(f"login {login!r}: use 1 to 64 letters, digits and . _ - + @, without spaces")
    person = session.scalar(select(Person).where(Person.login == login))
    member = session.scalar(select(Member).where(Member.project_id == project.id, Member.rater == login))
    if member is not None and member.person_id is not None:
        raise BadInput(f"{login} is in project {project.name!r} already, as {member.role}")
    if person is None:
        if password is None:
            raise BadInput(f"login {login!r} is new and needs a password")
        if len(password) < SHORTEST_PASSWORD:
            raise BadInput(f"the password of {login!r} is too short: give at least {SHORTEST_PASSWORD} characters")
        person = Person(login=login, name=name, password_hash=_hasher.hash(password), created_at=time.time())
        session.add(person)
    elif password is not None:
        raise BadInput(f"login {login!r} has a password from another project, which it keeps; leave the password out")
    session.flush()
    if member is None:
        member = Member(project_id=project.id, rater=login, role=role, pseudonym=new_pseudonym())
        session.add(member)
    member.person_id, member.role = person.id, role
    session.flush()
    note(session, "person added", project=project.id, member=member.id, role=role)
    return member


def create_own_project(
    session: Session, person_id: int, name: str, guidelines: str | None, settings: ProjectSettings
) -> Project:
    """Make a project that this person owns. Raises Refused unless they own another one already."""
    owned = select(Member).where(Member.person_id == person_id, Member.role == "owner", Member.removed_at.is_(None))
    if session.scalars(owned.limit(1)).first() is None:
        raise Refused("forbidden", "Only who owns a project may make another one; ask whoever runs this server.")
    settings = ProjectSettings(**settings.model_dump(include=set(ProjectSettings.model_fields)))
    project = create_project(session, name, guidelines=guidelines, settings=settings)
    person = session.get_one(Person, person_id)
    session.add(
        Member(
            project_id=project.id,
            person_id=person_id,
            rater=person.login,
            role="owner",
            pseudonym=new_pseudonym(),
        )
    )
    session.flush()
    return project


def is_new_login(session: Session, login: str) -> bool:
    return session.scalar(select(Person.id).where(Person.login == login)) is None


def new_pseudonym() -> str:
    """What exports call a rater: random, so that nothing about the person can be worked out from it."""
    return f"rater-{secrets.token_hex(5)}"


def readable_password() -> str:
    """A random password that can be read out: four groups of two syllables, 50 bits."""
    syllables = [consonant + vowel for consonant in "bdfghjklmnprstvz" for vowel in "aeiou"]
    return "-".join(secrets.choice(syllables) + secrets.choice(syllables) for _ in range(4))


def check_password(database: Database, login: str, password: str) -> Person | None:
    """The person with that login and password, or None. Raises Throttled, without looking, after too many failures.

    An attempt is charged before the password is hashed, so that many at once can't slip through, and given back when
    it was right. The hashing, which is slow on purpose, holds no lock.
    """
    now = time.time()
    login = login[:64]
    with database.write() as session:
        # Attempts on one login take turns (PostgreSQL; elsewhere all that write do).
        person = session.scalar(select(Person).where(Person.login == login).with_for_update(key_share=True))
        recent = (FailedLogin.login == login) & (FailedLogin.at > now - THROTTLE_SECONDS)
        failures, oldest = session.execute(select(func.count(), func.min(FailedLogin.at)).where(recent)).one()
        if failures >= THROTTLE_FAILURES:
            raise Throttled(oldest + THROTTLE_SECONDS - now)
        session.execute(delete(FailedLogin).where(FailedLogin.at < now - THROTTLE_SECONDS))
        session.add(FailedLogin(login=login, at=now))
    try:
        _hasher.verify(person.password_hash if person else _hash_of_nobody(), password)
    except (VerificationError, InvalidHashError):
        return None
    with database.write() as session:
        session.execute(delete(FailedLogin).where(FailedLogin.login == login))
    return person


@cache
def _hash_of_nobody() -> str:
    """Verified when the login is of nobody, so that the answer takes as long as for a wrong password."""
    return _hasher.hash(secrets.token_hex(16))


def start_login(session: Session, person: Person) -> str:
    """Begin a login session and return the token for the person's browser; the database keeps only its hash."""
    token = secrets.token_urlsafe(32)
    now = time.time()
    session.execute(delete(Login).where(Login.expires_at < now))
    session.add(
        Login(
            person_id=person.id,
            token_hash=_token_hash(token),
            csrf_token=secrets.token_urlsafe(24),
            created_at=now,
            expires_at=now + LOGIN_SECONDS,
        )
    )
    return token


def end_login(session: Session, token: str) -> None:
    session.execute(delete(Login).where(Login.token_hash == _token_hash(token)))


def visitor(session: Session, token: str | None) -> Visitor | None:
    """Who holds this token, or None if nobody does or the login has expired."""
    if not token:
        return None
    query = select(Person.id, Person.login, Login.csrf_token, Login.id).join(Login, Login.person_id == Person.id)
    row = session.execute(query.where(Login.token_hash == _token_hash(token), Login.expires_at > time.time())).first()
    return Visitor(*row) if row else None


def memberships(session: Session, person_id: int, role: str | None = None) -> list[tuple[Member, Project]]:
    """A person's projects with the part that they have there, by project name; only those of `role` if given."""
    query = (
        select(Member, Project)
        .join(Project)
        .where(Member.person_id == person_id, Member.removed_at.is_(None))
        .order_by(Project.name)
    )
    if role is not None:
        query = query.where(Member.role == role)
    return [(member, project) for member, project in session.execute(query)]


def _token_hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
