"""`annotate project`: make a campaign, change it, close it, and say what raters must read."""

import re
import shlex
from typing import TYPE_CHECKING, Any, TypeVar

import click

from annotate.commands.common import database_option, json_option, read_text, say, use_database
from preferences.errors import BadInput

if TYPE_CHECKING:
    from pydantic import BaseModel

M = TypeVar("M", bound="BaseModel")


@click.group(short_help="Make campaigns, change them, and list them.")
def project() -> None:
    """Campaigns: their guidelines, how many answers an item gets, and who is given what."""


def options_of_raters(command: Any) -> Any:
    """The options that `create` and `set` share."""
    for option in reversed(
        [
            click.option("--overlap", type=int, help="How many raters answer each item.  [default: 1]"),
            click.option(
                "--sure",
                metavar="SHARE|off",
                help="Ask no more about an item when it is so certain which response is better, as in 0.95."
                "  [default: off]",
            ),
            click.option(
                "--hold-back",
                metavar="SHARE|off",
                help="Leave items of more disagreement out of exports until somebody decides.  [default: off]",
            ),
            click.option("--gold-rate", type=float, help="Share of gold items among real ones.  [default: 0.1]"),
            click.option("--qualify", type=int, help="Gold items to pass before real ones.  [default: 0]"),
            click.option("--practice", type=int, help="Gold items that a new rater practises on.  [default: 3]"),
            click.option(
                "--dimension",
                "dimensions",
                multiple=True,
                metavar="NAME=ANCHOR|ANCHOR…",
                help="Rate each response on it; the anchors are the words of the steps.",
            ),
            click.option("--rationale", type=click.Choice(["off", "optional", "required"]), help="Ask why."),
            click.option("--edit/--no-edit", default=None, help="Let raters rewrite the best response."),
            click.option("--spans/--no-spans", default=None, help="Let raters mark passages good or bad."),
            click.option("--all-bad/--no-all-bad", default=None, help="Let raters say that all responses are bad."),
            click.option(
                "--mask", multiple=True, metavar="NAME", help="A name to hide in responses, such as a model's."
            ),
            click.option(
                "--arena",
                multiple=True,
                metavar="MODEL",
                help="Raters chat with two of these models, which `annotate serve --models` knows, and rate no items.",
            ),
            click.option("--pay", metavar="AMOUNT CURRENCY/PER", help="What raters earn, as in '12.50 EUR/hour'."),
            click.option("--skill", "skills", multiple=True, metavar="TAG", help="Only raters with this skill get it."),
            click.option("--warning", "warnings", multiple=True, metavar="TAG=TEXT", help="A content warning."),
            click.option("--consent", type=click.Path(), metavar="FILE.md", help="What raters must agree to first."),
        ]
    ):
        command = option(command)
    return command


@project.command("create")
@click.argument("name")
@click.option("--guidelines", type=click.Path(), metavar="FILE.md", help="What raters read first, as Markdown.")
@options_of_raters
@click.option("--strength/--no-strength", default=True, show_default=True, help="Ask how much better the best is.")
@click.option("--validation", type=float, help="Share of the items that validate.  [default: 0.1]")
@click.option("--test", type=float, help="Share of the items that test.  [default: 0.1]")
@click.option(
    "--simulated", is_flag=True, help="Imported answers come from programs: it is said wherever the project is shown."
)
@database_option
@json_option
def create(name: str, guidelines: str | None, database: str | None, as_json: bool, **given: Any) -> None:
    """Make project NAME, and the database if there is none yet."""
    text = read_text(guidelines, "--guidelines") if guidelines is not None else None
    from annotate.services.projects import ProjectSettings, create_project

    settings = _checked(ProjectSettings, given)
    with use_database(database, create=True) as db, db.write() as session:
        made = create_project(session, name, guidelines=text, settings=settings)
        facts = {
            "project": made.name,
            "database": db.name,
            "overlap": settings.overlap,
            "simulated": settings.simulated,
        }
    follows = "serve --models FILE" if settings.arena else f"import {shlex.quote(made.name)} FILE"
    say(facts, as_json, f"project {made.name!r} made in {db.name}; next: annotate {follows}")


@project.command("set")
@click.argument("name")
@options_of_raters
@click.option("--closed/--open", default=None, help="Give out no more items; what comes late is kept, not counted.")
@database_option
@json_option
def set_(name: str, database: str | None, as_json: bool, **given: Any) -> None:
    """Change what is given of project NAME, and nothing else.

    --overlap is of items imported from then on. Raters must agree to a changed consent anew. --skill, --warning,
    --dimension, --mask and --arena replace all that were there; --skill '' takes them away.
    """
    from annotate.services.projects import ProjectChange, change_project, find_project
    from annotate.services.refit import refit

    change = _checked(ProjectChange, given)
    if not change.model_fields_set:
        raise BadInput("nothing to change; give one of the options that `annotate project set --help` lists")
    with use_database(database) as db:
        with db.write() as session:
            found = change_project(session, find_project(session, name).id, change, None, by=None)
        if change.sure is not None:
            refit(db, found.id)
        facts = {
            "project": found.name,
            "version": found.version,
            "closed": found.closed_at is not None,
            **{key: getattr(found, key) for key in ("overlap", "gold_rate", "qualify", "skills", "warnings")},
        }
    say(facts, as_json, f"project {found.name!r} changed: {', '.join(sorted(change.model_fields_set))}")


@project.command("guidelines", short_help="Set the guidelines that every rater reads first.")
@click.argument("name")
@click.argument("file", type=click.Path())
@database_option
@json_option
def guidelines(name: str, file: str, database: str | None, as_json: bool) -> None:
    """Make FILE (Markdown) the guidelines of project NAME; every rater reads them before going on.

    The old ones are kept: each answer says under which version it was given.
    """
    text = read_text(file, "FILE")
    from annotate.services.projects import find_project, new_guidelines

    with use_database(database) as db, db.write() as session:
        version = new_guidelines(session, find_project(session, name).id, text, by=None)
    say({"project": name, "guideline": version}, as_json, f"version {version} of the guidelines of {name} is in force")


@project.command("list")
@database_option
@json_option
def list_(database: str | None, as_json: bool) -> None:
    """Print the projects of the database."""
    from sqlalchemy import select

    from annotate.store.tables import Project

    with use_database(database) as db, db.read() as session:
        found = [
            {"project": one.name, "overlap": one.overlap, "closed": one.closed_at is not None, "version": one.version}
            for one in session.scalars(select(Project).order_by(Project.name))
        ]
    lines = [f"{one['project']}{'   closed' if one['closed'] else ''}" for one in found]
    say({"projects": found}, as_json, "\n".join(lines) or "no projects; `annotate project create NAME` makes one")


def _checked(model: type[M], given: dict[str, Any]) -> M:
    """The settings that the options give. Raises BadInput that names the option."""
    from pydantic import ValidationError

    values = {key: value for key, value in given.items() if value not in (None, ())}
    if "warnings" in values:
        values["warnings"] = dict(_warning(text) for text in values["warnings"] if text)
    for name in ("skills", "mask", "arena"):
        if name in values:
            values[name] = [one for one in values[name] if one]
    if "dimensions" in values:
        values["dimensions"] = [_dimension(text) for text in values["dimensions"] if text]
    for name in ("sure", "hold_back"):
        if values.get(name) == "off":
            values[name] = None
    if "pay" in values:
        values["pay"] = _pay(values["pay"])
    if "consent" in values:
        values["consent"] = read_text(values["consent"], "--consent")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        option = {"skills": "--skill", "warnings": "--warning", "dimensions": "--dimension"}.get(
            str(first["loc"][0]), "--" + str(first["loc"][0]).replace("_", "-")
        )
        raise BadInput(f"{option} {first['input']}: {first['msg'].removeprefix('Value error, ')}") from None


def _dimension(text: str) -> dict[str, Any]:
    name, found, words = text.partition("=")
    anchors = [one.strip() for one in words.split("|")]
    if not found or not name.strip() or not 2 <= len(anchors) <= 7:
        raise BadInput(
            f"--dimension {text!r}: give a name and 2 to 7 anchors, as in --dimension 'helpful=useless||fine||perfect'"
        )
    return {"name": name.strip(), "anchors": anchors}


def _pay(text: str) -> dict[str, Any]:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s+([A-Z]{3})\s*/\s*(hour|answer)\s*", text)
    if found is None:
        raise BadInput(f"--pay {text!r}: give an amount, a currency and what it is for, as in --pay '12.50 EUR/hour'")
    return {"amount": float(found[1]), "currency": found[2], "per": found[3]}


def _warning(text: str) -> tuple[str, str]:
    tag, found, words = text.partition("=")
    if not found or not tag.strip() or not words.strip():
        raise BadInput(f"--warning {text!r}: give a tag and what to warn of, as in --warning 'violence=It is violent.'")
    return tag.strip(), words.strip()
