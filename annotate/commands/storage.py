"""`annotate backup`, `annotate restore` and `annotate move`: the whole database, while a server may run on it."""

from pathlib import Path

import click

from annotate.commands.common import database_option, json_option, progress, say, use_database


@click.command(short_help="Write the whole database to a file.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace FILE if it is there.")
@database_option
@json_option
def backup(file: Path, overwrite: bool, database: str | None, as_json: bool) -> None:
    """Write the whole database to FILE, while a server may run on it.

    FILE is one SQLite database, also if the original is on PostgreSQL: all projects as they are at one moment, checked
    against the original. It holds passwords' hashes and everything personal, and only you may read it.
    """
    from annotate.services.storage import back_up, facts

    with use_database(database) as db, progress("backing up", as_json, "rows") as advance:
        found = back_up(db, file, overwrite=overwrite, advance=advance)
    size = file.stat().st_size
    text = f"{file}: {found['answers'].rows} answers to {found['items'].rows} items, {size / 1e6:.1f} MB, checked"
    say({"database": db.name, "file": str(file), "bytes": size, **facts(found)}, as_json, text)


@click.command(short_help="Give the database the state of a backup.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Go back to FILE although answers that it lacks will be gone.")
@database_option
@json_option
def restore(file: Path, overwrite: bool, database: str | None, as_json: bool) -> None:
    """Give the database the state that the backup FILE holds, all or nothing; a server on it may go on running.

    If the database holds answers that FILE lacks, this needs --overwrite. The state before is saved to a file first,
    and the command says where. A backup of an older version is brought up to date; FILE itself does not change.

    Everybody has to sign in again, and links that were handed out are void: sessions and links that have ended since
    the backup would be good again. So would API tokens: of these only those come back that the database still has,
    or all if it was empty. Passwords are those of the backup. Who was erased since is back: erase them again.
    """
    from annotate.services.storage import facts, find_backup
    from annotate.services.storage import restore as restore_from

    find_backup(file)
    with use_database(database, create=True) as db, progress("restoring", as_json, "rows") as advance:
        found, saved = restore_from(db, file, overwrite=overwrite, advance=advance)
    text = f"{db.name}: {found['answers'].rows} answers to {found['items'].rows} items, as in {file}"
    if saved is not None:
        text += f"; the state before is in {saved}"
    where = {"database": db.name, "file": str(file), "saved": str(saved) if saved else None}
    say({**where, **facts(found)}, as_json, text)


@click.command(short_help="Move the whole database to another one.")
@click.option("--to", "to", required=True, metavar="PATH|URL", help="An empty database, or an SQLite file to be made.")
@database_option
@json_option
def move(to: str, database: str | None, as_json: bool) -> None:
    """Move the whole database to another one, such as from SQLite to PostgreSQL, while a server may run on it.

    Who wants to store something meanwhile waits. When everything is copied and compared, the old database refuses every
    change, so that a server still running on it tells its raters of an error instead of losing their answers: start
    it again with the new one. Any command on the old one says where the database has gone.
    """
    from annotate.services.storage import facts
    from annotate.services.storage import move as move_to

    with (
        use_database(database) as source,
        use_database(to, create=True) as target,
        progress("moving", as_json, "rows") as advance,
    ):
        found = move_to(source, target, advance)
    text = (
        f"moved {found['answers'].rows} answers to {found['items'].rows} items from {source.name} to {target.name};"
        " start the server again with --database and the new place"
    )
    say({"from": source.name, "to": target.name, **facts(found)}, as_json, text)
