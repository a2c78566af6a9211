"""People: who may log in, their passwords and login sessions, and that they get a part in a project."""

import hashlib
import re
import secrets
import time
from collections.abc import Iterable
from functools import cache
from threading import BoundedSemaphore
from typing import NamedTuple

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from annotate.services.projects import ProjectSettings, create_project, note
from annotate.services.refusals import Refused
from annotate.store.access import FailedLogin, Link, Login
from annotate.store.database import Database
from annotate.store.tables import Member, Person, Project
from preferences.errors import BadInput

LOGIN_SECONDS = 14 * 24 * 3600.0
THROTTLE_FAILURES, THROTTLE_SECONDS = 10, 600.0
SHORTEST_PASSWORD, LONGEST_PASSWORD = 8, 1000
LONGEST_NAME = 200

_hasher = PasswordHasher()
_hashing = BoundedSemaphore(4)  # each hash takes 64 MiB, so that many at once could exhaust the memory


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
    check_login(login)
    person = session.scalar(select(Person).where(Person.login == login))
    member = session.scalar(select(Member).where(Member.project_id == project.id, Member.rater == login))
    if member is not None and member.removed_at is not None:
        raise BadInput(
            f"{login} was removed from project {project.name!r}; `annotate people remove --undo` brings them back"
        )
    if member is not None and member.person_id is not None:
        raise BadInput(f"{login} is in project {project.name!r} already, as {member.role}")
    if person is None:
        if password is None:
            raise BadInput(f"login {login!r} is new and needs a password")
        person = new_person(session, login, name=name, password_hash=hash_password(password))
    elif password is not None:
        raise BadInput(f"login {login!r} has a password from another project, which it keeps; leave the password out")
    member = give_part(session, project.id, person, role=role, member=member)
    note(session, "person added", project=project.id, member=member.id, role=role)
    return member


def check_login(login: str) -> None:
    """Raises BadInput for what can't be a login."""
    if not re.fullmatch(r"[\w.@+-]{1,64}", login):
        raise BadInput(f"login {login!r}: use 1 to 64 letters, digits and . _ - + @, without spaces")


def new_person(
    session: Session, login: str, *, name: str | None, password_hash: str, openid: str | None = None
) -> Person:
    """Store somebody who can log in. Raises BadInput for a bad name, Refused "already-there" for a login in use."""
    name = name.strip() if name else None
    if name and (len(name) > LONGEST_NAME or not name.isprintable()):
        raise BadInput(f"this name does not fit: give at most {LONGEST_NAME} printable characters")
    person = Person(login=login, name=name or None, password_hash=password_hash, openid=openid, created_at=time.time())
    try:
        with session.begin_nested():
            session.add(person)
    except IntegrityError:  # also where somebody else takes it at the same moment
        raise Refused("already-there", "This login is taken; choose another one, or sign in if it is yours.") from None
    return person


def give_part(
    session: Session,
    project_id: int,
    person: Person,
    *,
    role: str,
    skills: Iterable[str] = (),
    member: Member | None = None,
) -> Member:
    """Let a person into a project, as a new member or as `member`, whom an import named.

    Links to set this person's password are void from then on: the owner who made one could use it to get into this
    project, too. Raises Refused "already-there" for somebody who is in the project, or whose login an import used.
    """
    session.execute(delete(Link).where(Link.person_id == person.id, Link.used_at.is_(None)))
    if member is None:
        member = Member(
            project_id=project_id,
            person_id=person.id,
            rater=person.login,
            role=role,
            skills=sorted(set(skills)),
            pseudonym=new_pseudonym(),
        )
        try:
            with session.begin_nested():
                session.add(member)
        except IntegrityError:
            raise Refused(
                "already-there", f"There is somebody called {person.login!r} in this project already; ask its owner."
            ) from None
    else:
        member.person_id, member.role = person.id, role
        member.version += 1
    session.flush()
    return member


def hash_password(password: str) -> str:
    """The argon2 hash of a password; takes a while, so not for inside a write transaction. Raises BadInput if short."""
    if len(password) < SHORTEST_PASSWORD:
        raise BadInput(f"the password is too short: give at least {SHORTEST_PASSWORD} characters")
    if len(password) > LONGEST_PASSWORD:
        raise BadInput(f"the password is too long: give at most {LONGEST_PASSWORD} characters")
    with _hashing:
        return _hasher.hash(password)


def set_password(session: Session, person_id: int, password_hash: str, *, keep_login: int | None = None) -> None:
    """Set a password and end all login sessions of the person but `keep_login`; failed attempts are forgotten."""
    person = session.get_one(Person, person_id)
    person.password_hash = password_hash
    session.execute(delete(Login).where(Login.person_id == person_id, Login.id != (keep_login or 0)))
    session.execute(delete(FailedLogin).where(FailedLogin.login == person.login))
    note(session, "password changed", project=None, person=person_id)


def change_password(database: Database, person_id: int, login_id: int, old: str, new: str) -> None:
    """A person changes their own password; their other login sessions end.

    Raises Refused if the old one is wrong, or was wrong too often; BadInput for a new one that does not fit.
    """
    with database.read() as session:
        login = session.get_one(Person, person_id).login
    try:
        if check_password(database, login, old) is None:
            raise Refused("forbidden", "The old password is wrong, so it stays as it is.")
    except Throttled as error:
        words = "Too many wrong passwords; wait a few minutes."
        raise Refused("too-many-requests", words, retry_after=round(error.seconds, 3)) from None
    password_hash = hash_password(new)
    with database.write() as session:
        set_password(session, person_id, password_hash, keep_login=login_id)


def create_own_project(
    session: Session, person_id: int, name: str, guidelines: str | None, settings: ProjectSettings
) -> Project:
    """Make a project that this person owns. Raises Refused unless they own another one already."""
    may_create_projects(session, person_id)
    settings = ProjectSettings(**settings.model_dump(include=set(ProjectSettings.model_fields)))
    project = create_project(session, name, guidelines=guidelines, settings=settings, person=person_id)
    give_part(session, project.id, session.get_one(Person, person_id), role="owner")
    return project


def may_create_projects(session: Session, person_id: int) -> None:
    """Raises Refused unless the person owns a project."""
    owned = select(Member).where(Member.person_id == person_id, Member.role == "owner", Member.removed_at.is_(None))
    if session.scalars(owned.limit(1)).first() is None:
        raise Refused("forbidden", "Only who owns a project may make another one; ask whoever runs this server.")


def find_person(session: Session, login: str) -> Person:
    """The person with that login. Raises BadInput if there is nobody."""
    person = session.scalar(select(Person).where(Person.login == login))
    if person is None:
        raise BadInput(f"nobody has the login {login!r}; `annotate people list PROJECT` names everybody in a project")
    return person


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
    known = person is not None and person.password_hash != ""
    try:
        with _hashing:
            nobody = _hash_of_nobody()  # made by the first attempt, whoever's it is
            _hasher.verify(person.password_hash if person and known else nobody, password[:LONGEST_PASSWORD])
    except (VerificationError, InvalidHashError):
        return None
    if not known:
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
    note(session, "signed in", project=None, person=person.id)
    return token


def end_login(session: Session, token: str) -> None:
    """End the login session that has this token, if there is one."""
    ended = delete(Login).where(Login.token_hash == _token_hash(token)).returning(Login.person_id)
    if (person := session.scalar(ended)) is not None:
        note(session, "signed out", project=None, person=person)


def set_language(session: Session, person_id: int, language: str | None) -> None:
    """Keep the language in which a person wants the pages, a code such as "de"; None: their browser's."""
    session.get_one(Person, person_id).language = language
    note(session, "language chosen", project=None, person=person_id)


def login_sessions(session: Session, person_id: int) -> list[Login]:
    """A person's login sessions that still run, the newest first."""
    running = select(Login).where(Login.person_id == person_id, Login.expires_at > time.time())
    return list(session.scalars(running.order_by(Login.id.desc())))


def end_login_session(session: Session, person_id: int, login_id: int) -> None:
    """End one of a person's own login sessions. Raises Refused where there is no such one."""
    ended = delete(Login).where(Login.id == login_id, Login.person_id == person_id).returning(Login.id)
    if session.scalar(ended) is None:
        raise Refused("not-found", "You have no such login session.")
    note(session, "session ended", project=None, person=person_id)


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
