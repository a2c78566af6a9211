"""The `annotate` command: one sub-command a verb; what is heavy to import is imported inside the verb."""

import errno
from pathlib import Path
from typing import Any

import click

from annotate.commands import judgements, people, project, report, serve, storage
from annotate.commands.common import database_option, json_option, progress, read_token, say, use_database
from preferences.errors import BadInput, exit_on_bad_input
from preferences.formats import check_name, list_of_formats


def main() -> None:
    with exit_on_bad_input():
        cli()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="concord", message="%(version)s")
def cli() -> None:
    """Collect people's rankings of responses, and export them as preferences.

    \b
    annotate project create my-project --guidelines guidelines.md
    annotate people add my-project anna
    annotate import my-project items.jsonl
    annotate serve
    annotate export my-project my-preferences
    """


@cli.command("import", epilog=list_of_formats(), short_help="Store the items and answers of a file.")
@click.argument("project")
@click.argument("file", type=click.Path())
@click.option("--format", "name", metavar="NAME", help="FILE is another tool's.")
@database_option
@json_option
def import_(project: str, file: str, name: str | None, database: str | None, as_json: bool) -> None:
    """Store the items of FILE, with the answers in it: all of them or, if a line is wrong, none.

    FILE has one JSON object a line: {"id", "prompt", "responses": [two or more], "answers": [optional], …}; see
    docs/contract.md. Items that are there already, unchanged, are left as they are.

    With --format FILE is what another tool writes, as JSON lines or a JSON array, gzipped or not. What it says and an
    item has no place for is counted; docs/formats.md has the list.
    """
    from annotate.services.exchange import import_items
    from annotate.services.projects import find_project
    from annotate.services.refit import refit
    from preferences.formats import read_as

    check_name(name)
    with use_database(database) as db:
        with db.read() as session:
            find_project(session, project)
        # Reading is outside of the transaction, which would keep raters waiting.
        records, lost = read_as(file, name)
        with db.write() as session, progress("importing", as_json) as advance:
            found = find_project(session, project)
            counts = import_items(session, found, records, file, advance)
        if found.sure is not None and counts["answers"]:
            refit(db, found.id)
    text = (
        f"stored {counts['items']} items and {counts['answers']} answers ({counts['raters']} new raters) in {project}"
    )
    if counts["unchanged"]:
        text += f"; {counts['unchanged']} items were there already, unchanged"
        if counts["priorities"]:
            text += f" but for the priority of {counts['priorities']}"
    if counts["near"]:
        text += f"; items that share a group since their prompt is nearly another one: {counts['near']}"
    if counts["kept_apart"]:
        text += f"; groups that share a prompt with one on another side of the split, and stay: {counts['kept_apart']}"
    facts = {"project": project, **counts, **({"lost": lost} if name else {})}
    say(facts, as_json, "\n  ".join([text, *lost]))


@cli.command(epilog=list_of_formats(), short_help="Write what the answers say as a preferences folder.")
@click.argument("words", nargs=-1, required=True, metavar="PROJECT... [FOLDER]")
@click.option("--judgements", "file", metavar="FILE", help="Write what raters said of models to FILE, and no folder.")
@click.option("--format", "name", metavar="NAME", help="Write another tool's shape.")
@click.option("--overwrite", is_flag=True, help="Replace FOLDER if it is an earlier export, or FILE.")
@click.option("--server", metavar="URL", help="Ask the server at URL instead of a database on this machine.")
@click.option("--token-file", type=click.Path(), metavar="FILE|-", help="Your token of it.  [env var: ANNOTATE_TOKEN]")
@database_option
@json_option
def export(
    words: tuple[str, ...],
    file: str | None,
    name: str | None,
    overwrite: bool,
    server: str | None,
    token_file: str | None,
    database: str | None,
    as_json: bool,
) -> None:
    """Write what the answers of one or several PROJECTs say to FOLDER, as one preferences folder.

    Raters appear under random pseudonyms. The split of a group of items is chosen at its first export and never
    changes; groups of several projects that share a prompt or a name are split alike, and where their splits were
    chosen apart before, what is held out less is left out. The same answers give the same bytes.

    With --server it needs a token with the right `export`, from --token-file or ANNOTATE_TOKEN.

    With --format it is the same in another tool's shape: a file a split in FOLDER, or one file if FOLDER is named
    like one (.json, .jsonl, .jsonl.gz) and the shape is a single file. What has no place in it is counted.

    With --judgements there is no FOLDER: every rater's answer becomes a line of FILE for each two responses whose
    models are known, as `align winrate` and the judges of `align evaluate` read it.
    """
    from preferences.contract import is_preferences_folder

    if file is not None:
        if name is not None:
            raise BadInput("--judgements is a shape of its own; leave --format out")
        judgements.export_judgements(words, Path(file), overwrite, server, token_file, database, as_json)
        return
    if len(words) < 2:
        raise BadInput(
            f"name the projects, then the folder to write to, as in: annotate export {words[0]} my-preferences"
        )
    *names, folder = words
    projects, path = tuple(names), Path(folder)
    if name is not None:
        _export_as(name, path, overwrite, server, token_file, database, projects, as_json)
        return
    if path.exists() and not path.is_dir():
        raise BadInput(f"{folder} is a file; name a folder to write to")
    if path.is_dir() and any(path.iterdir()):
        if not overwrite:
            raise BadInput(
                f"{folder} is not empty; name another folder, or say --overwrite to replace an earlier export"
            )
        if not is_preferences_folder(path):
            raise BadInput(f"{folder} is not a preferences folder, so --overwrite leaves it alone; name another folder")
    manifest = _export(server, token_file, database, projects, path)
    counts = manifest["counts"]
    said_of = {
        "train": "training pairs",
        "validation": "validation pairs",
        "test": "test pairs",
        "ties": "ties",
        "rankings": "rankings",
    }
    text = f"{folder}: " + ", ".join(f"{counts[name]} {word}" for name, word in said_of.items())
    out, said = _stays_out(manifest)
    facts = {"project": manifest["project"], "projects": list(projects), "folder": folder, "counts": counts}
    say({**facts, **out}, as_json, text + said)


def _stays_out(manifest: dict[str, Any]) -> tuple[dict[str, int], str]:
    """How many rankings an export leaves out, and the same in words."""
    left_out, held_back = manifest["left_out"], manifest.get("held_back", 0)  # a server of before does not say it
    text = ""
    if left_out:
        text += f"; left out, because the same prompt or group is held out in another project: {left_out} rankings"
    if held_back:
        text += f"; held back, because raters differ and nobody has decided: {held_back} rankings"
    return {"left_out": left_out, "held_back": held_back}, text


def _export_as(
    name: str,
    path: Path,
    overwrite: bool,
    server: str | None,
    token_file: str | None,
    database: str | None,
    projects: tuple[str, ...],
    as_json: bool,
) -> None:
    """The same in another tool's shape, by way of a preferences folder."""
    import tempfile

    from preferences.formats import write_format
    from preferences.formats.records import read_folder
    from preferences.formats.rows import check_free

    check_name(name)
    check_free(path, overwrite)
    with tempfile.TemporaryDirectory() as temporary:
        manifest = _export(server, token_file, database, projects, Path(temporary) / "preferences")
        records = read_folder(Path(temporary) / "preferences")
    lost = write_format(path, name, records, overwrite=overwrite)
    out, said = _stays_out(manifest)
    text = "\n  ".join([f"{path}: {manifest['counts']['rankings']} rankings as {name}{said}", *lost])
    facts = {"project": manifest["project"], "projects": list(projects), "folder": str(path), "format_name": name}
    say({**facts, "counts": manifest["counts"], **out, "lost": lost}, as_json, text)


def _export(
    server: str | None, token_file: str | None, database: str | None, projects: tuple[str, ...], folder: Path
) -> dict[str, Any]:
    if server is not None:
        return _export_from_server(server, token_file, projects, folder)
    return _export_from_database(database, projects, folder)


def _export_from_database(database: str | None, projects: tuple[str, ...], folder: Path) -> dict[str, Any]:
    from annotate.services.export import export_preferences, settle_splits
    from annotate.services.projects import find_project
    from preferences.contract import write_preferences

    with use_database(database) as db:
        with db.write() as session:
            settle_splits(session, *(find_project(session, name) for name in projects))
        with db.read() as session:
            rows = export_preferences(session, *(find_project(session, name) for name in projects))
    try:
        return write_preferences(folder, rows)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise BadInput(f"cannot write to {folder}: {error.strerror}") from None


def _export_from_server(server: str, token_file: str | None, projects: tuple[str, ...], folder: Path) -> dict[str, Any]:
    from annotate.api.client import Client

    with Client(server, read_token(token_file)) as client:
        return client.export([client.project(name).id for name in projects], folder)


for command in (
    project.project,
    people.people,
    people.token,
    report.report,
    serve.serve,
    storage.backup,
    storage.restore,
    storage.move,
):
    cli.add_command(command)
