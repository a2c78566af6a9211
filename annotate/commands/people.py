"""`annotate people` and `annotate token`: who may log in, with what part, and their scripts' keys.

Whoever runs these commands has the database, and so may do everything; nobody is asked for a login.
"""

import json
import shlex
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from annotate.commands.common import database_option, json_option, read_text, say, use_database
from preferences.errors import BadInput

if TYPE_CHECKING:
    pass

ROLES = click.Choice(["rater", "reviewer", "owner"])
RIGHTS = click.Choice(["rate", "review", "export", "manage", "people"])
password_option = click.option(
    "--password-file", type=click.Path(), metavar="FILE|-", help="A file, or - for stdin, with the password."
)


@click.group()
def people() -> None:
    """Who may log in, and what they may do."""


@people.command("add")
@click.argument("project")
@click.argument("login")
@click.option("--role", type=ROLES, default="rater", show_default=True)
@click.option("--name", help="How to call this person; shown to owners only.")
@password_option
@database_option
@json_option
def add(
    project: str,
    login: str,
    role: str,
    name: str | None,
    password_file: str | None,
    database: str | None,
    as_json: bool,
) -> None:
    """Let LOGIN rate in PROJECT, or review or own it.

    Without --password-file the password is asked for; where nobody can be asked one is made up and printed once.
    """
    password = None if password_file is None else _from_file(password_file)
    from annotate.services.people import add_person, is_new_login
    from annotate.services.projects import find_project

    made_up = None
    with use_database(database) as db:
        with db.read() as session:
            find_project(session, project)
            wanted = password is None and is_new_login(session, login)
        if wanted:
            password, made_up = _ask_or_make(as_json)
        with db.write() as session:
            member = add_person(session, find_project(session, project), login, role=role, name=name, password=password)
    facts = {"project": project, "login": login, "role": role, "pseudonym": member.pseudonym, "password": made_up}
    say(facts, as_json, f"{login} added to {project} as {role}{_told(made_up)}")


@people.command("list")
@click.argument("project")
@database_option
@json_option
def list_(project: str, database: str | None, as_json: bool) -> None:
    """Print everybody with a part in PROJECT, those removed too."""
    from annotate.services.members import members_of
    from annotate.services.projects import find_project

    with use_database(database) as db, db.read() as session:
        rows = members_of(session, find_project(session, project).id, after=0, limit=1_000_000)
    facts: list[dict[str, Any]] = [
        {
            "id": member.id,
            "rater": member.rater,
            "login": person.login if person else None,
            "name": person.name if person else None,
            "pseudonym": member.pseudonym,
            "role": member.role,
            "skills": member.skills,
            "answers": answers,
            "qualified": member.qualified_at is not None,
            "removed": member.removed_at is not None,
        }
        for member, person, answers in rows
    ]
    lines = [
        f"{_plain(one['rater']):<24}  {one['pseudonym']:<16}  {one['role']:<8}  {one['answers']:>6} answers"
        + ("" if one["login"] else "  without a login")
        + ("  removed" if one["removed"] else "")
        for one in facts
    ]
    say({"project": project, "people": facts}, as_json, "\n".join(lines) or f"nobody is in {project}")


@people.command()
@click.argument("project")
@click.option("--role", type=ROLES, default="rater", show_default=True)
@click.option("--skill", "skills", multiple=True, help="A tag that this person can rate; may be given several times.")
@click.option("--hours", type=click.FloatRange(0, 24 * 90, min_open=True), default=168, show_default=True)
@click.option("--url", default="http://127.0.0.1:7860", show_default=True, help="Where people reach the server.")
@database_option
@json_option
def invite(
    project: str, role: str, skills: tuple[str, ...], hours: float, url: str, database: str | None, as_json: bool
) -> None:
    """Print a link with which one person may join PROJECT. It works once, for --hours."""
    from annotate.services import links
    from annotate.services.projects import find_project

    with use_database(database) as db, db.write() as session:
        found = find_project(session, project)
        made = links.invite(session, found.id, role=role, skills=list(skills), hours=hours, by=None)
    link = url.rstrip("/") + made.path
    ends = made.link.expires_at
    facts = {"project": project, "role": role, "skills": made.link.skills, "link": link, "expires_at": ends}
    say(facts, as_json, f"{link}\njoins {project} as {role}, once, until {_time(ends)}")


@people.command()
@click.argument("project")
@click.argument("rater")
@click.argument("role", type=ROLES)
@database_option
@json_option
def role(project: str, rater: str, role: str, database: str | None, as_json: bool) -> None:
    """Give RATER (a login) another ROLE in PROJECT. Somebody always owns a project."""
    _change(project, rater, {"role": role}, database, as_json, f"{rater} is {role} in {project}")


@people.command(short_help="Shut a rater out of a project, at once.")
@click.argument("project")
@click.argument("rater")
@click.option("--undo", is_flag=True, help="Bring them back.")
@database_option
@json_option
def remove(project: str, rater: str, undo: bool, database: str | None, as_json: bool) -> None:
    """Shut RATER (a login, an imported id or a pseudonym) out of PROJECT, at once. What they answered stays."""
    words = f"{rater} is back in {project}" if undo else f"{rater} is out of {project}"
    _change(project, rater, {"removed": not undo}, database, as_json, words)


@people.command()
@click.argument("login")
@password_option
@database_option
@json_option
def password(login: str, password_file: str | None, database: str | None, as_json: bool) -> None:
    """Set a new password for LOGIN, who is signed out everywhere.

    Without --password-file the password is asked for; where nobody can be asked one is made up and printed once.
    """
    given = None if password_file is None else _from_file(password_file)
    from annotate.services.people import find_person, hash_password, set_password

    made_up = None
    with use_database(database) as db:
        with db.read() as session:
            found = find_person(session, login)
        if given is None:
            given, made_up = _ask_or_make(as_json)
        password_hash = hash_password(given)
        with db.write() as session:
            set_password(session, found.id, password_hash)
    say({"login": login, "password": made_up}, as_json, f"{login} has a new password{_told(made_up)}")


@people.command(short_help="Erase who a rater is, and the free text they wrote.")
@click.argument("project")
@click.argument("rater")
@click.option("--yes", is_flag=True, help="Don't ask; there is no way back.")
@database_option
@json_option
def erase(project: str, rater: str, yes: bool, database: str | None, as_json: bool) -> None:
    """Erase who RATER (a login, an imported id or a pseudonym) is, and the free text they wrote in PROJECT.

    Their ranks stay under a new pseudonym, which no earlier export has. Backups keep what they have.
    """
    from annotate.services import privacy
    from annotate.services.members import member_called
    from annotate.services.projects import find_project

    with use_database(database) as db:
        with db.read() as session:
            member = member_called(session, find_project(session, project), rater)
        if not yes:
            if not sys.stdin.isatty():
                raise BadInput("erasing has no way back; say --yes")
            click.confirm(f"Erase {_plain(rater)} from {project}? There is no way back.", abort=True, err=True)
        with db.write() as session:
            pseudonym = privacy.erase(session, member.project_id, member.id, by=None)
        scrubbed = privacy.scrub(db)
    traces = "" if scrubbed else "; the files of the database may hold traces until it overwrites them"
    facts = {"project": project, "pseudonym": pseudonym, "scrubbed": scrubbed}
    say(facts, as_json, f"erased from {project}; the ranks stay under {pseudonym}{traces}")


@people.command(short_help="Print everything stored about a rater, as JSON.")
@click.argument("project")
@click.argument("rater")
@database_option
def data(project: str, rater: str, database: str | None) -> None:
    """Print everything that PROJECT stores about RATER (a login, an imported id or a pseudonym), as JSON."""
    from annotate.services.members import member_called
    from annotate.services.privacy import data_of_member
    from annotate.services.projects import find_project

    with use_database(database) as db, db.read() as session:
        found = data_of_member(session, member_called(session, find_project(session, project), rater))
    click.echo(json.dumps(found, ensure_ascii=False, allow_nan=False, indent=1))


@click.group(short_help="Keys for scripts, with some of a person's rights.")
def token() -> None:
    """Keys for scripts: each stands for a person, with some of their rights."""


@token.command()
@click.argument("login")
@click.option("--name", required=True, help="What will use it.")
@click.option("--right", "rights", type=RIGHTS, multiple=True, required=True, help="May be given several times.")
@click.option("--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="How long it works.")
@database_option
@json_option
def create(login: str, name: str, rights: tuple[str, ...], days: int, database: str | None, as_json: bool) -> None:
    """Make a token of LOGIN and print it, this once. It can do at most what LOGIN can."""
    from annotate.services.people import find_person
    from annotate.services.rights import Right
    from annotate.services.tokens import make_token

    ends = time.time() + days * 24 * 3600
    with use_database(database) as db, db.write() as session:
        row, made = make_token(session, find_person(session, login).id, name, [Right(one) for one in rights], ends)
    facts = {"id": row.id, "login": login, "name": name, "rights": row.rights, "expires_at": ends, "token": made}
    say(facts, as_json, f"{made}\nshown this once; it works until {_time(ends)}")


@token.command("list")
@click.argument("login")
@database_option
@json_option
def token_list(login: str, database: str | None, as_json: bool) -> None:
    """Print the tokens of LOGIN, without the tokens themselves."""
    from annotate.services.people import find_person
    from annotate.services.tokens import tokens_of

    with use_database(database) as db, db.read() as session:
        rows = tokens_of(session, find_person(session, login).id)
    columns = ("id", "name", "rights", "created_at", "expires_at", "used_at")
    facts = [{name: getattr(row, name) for name in columns} for row in rows]
    lines = [
        f"{row.id:>4}  {row.name}  {','.join(row.rights)}"
        + (f"  until {_time(row.expires_at)}" if row.expires_at else "")
        + (f"  used {_time(row.used_at)}" if row.used_at else "  never used")
        for row in rows
    ]
    say({"login": login, "tokens": facts}, as_json, "\n".join(lines) or f"{login} has no tokens")


@token.command(short_help="Make a token worth nothing, at once.")
@click.argument("login")
@click.argument("number", type=int)
@database_option
@json_option
def revoke(login: str, number: int, database: str | None, as_json: bool) -> None:
    """Make token NUMBER (see `annotate token list`) of LOGIN worth nothing, at once."""
    from annotate.services.people import find_person
    from annotate.services.tokens import revoke_token

    with use_database(database) as db, db.write() as session:
        revoke_token(session, find_person(session, login).id, number)
    say({"login": login, "id": number}, as_json, f"token {number} of {login} is revoked")


# --- inside ------------------------------------------------------------------------------------------------------


def _change(project: str, rater: str, what: dict[str, Any], database: str | None, as_json: bool, words: str) -> None:
    from annotate.services.members import MemberChange, change_member, member_called
    from annotate.services.projects import find_project

    with use_database(database) as db, db.write() as session:
        found = find_project(session, project)
        member = member_called(session, found, rater)
        change_member(session, found.id, member.id, MemberChange(**what), None, by=None)
    say({"project": project, "rater": rater, **what}, as_json, words)


def _from_file(path: str) -> str:
    return read_text(path, "--password-file").rstrip("\r\n")


def _ask_or_make(as_json: bool) -> tuple[str, str | None]:
    """(a password, the same if it was made up because nobody can be asked)."""
    from annotate.services.people import readable_password

    if sys.stdin.isatty() and not as_json:
        return click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True), None
    made = readable_password()
    return made, made


def _told(made_up: str | None) -> str:
    return f"; password, shown this once: {made_up}" if made_up else ""


def _plain(name: str) -> str:
    """An imported id, which does nothing to the terminal."""
    return shlex.quote(name) if name.isprintable() else ascii(name)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
