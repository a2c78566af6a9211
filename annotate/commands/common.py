"""What the files of commands share: options, the database, reading a text, progress, and printing facts.

Nothing heavy is imported here, so that `annotate --help` answers at once.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from preferences.errors import BadInput

if TYPE_CHECKING:
    from annotate.store.database import Database

database_option = click.option(
    "--database",
    envvar="ANNOTATE_DATABASE",
    show_envvar=True,
    metavar="PATH|URL",
    help="An SQLite file, or a URL such as postgresql+psycopg://user@host/name.  [default: data/annotate.db]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")


@contextlib.contextmanager
def use_database(where: str | None, *, create: bool = False) -> Iterator["Database"]:
    """The database that --database names, until the block ends.

    Raises BadInput as `open_database` does, and for what a service refuses in the block.
    """
    from annotate.services.refusals import Refused
    from annotate.store.database import open_database

    database = open_database(where, create=create)
    try:
        yield database
    except Refused as error:
        raise BadInput(error.detail.rstrip(".")) from None
    finally:
        database.engine.dispose()


def read_text(path: str, option: str) -> str:
    """The UTF-8 text of a file, or of stdin for "-". Raises BadInput that opens with the option."""
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"{option}: cannot read {path}: {error.strerror}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{option}: {path} is not UTF-8 text; save it as UTF-8") from None


def read_token(path: str | None) -> str:
    """The token for --server, from the file of --token-file or from ANNOTATE_TOKEN. Raises BadInput without one."""
    given = read_text(path, "--token-file") if path else os.environ.get("ANNOTATE_TOKEN", "")
    if not given.strip():
        raise BadInput("--server needs a token; make one with `annotate token create`, and set ANNOTATE_TOKEN to it")
    return given.strip()


@contextlib.contextmanager
def progress(what: str, quiet: bool, unit: str = "items") -> Iterator[Any]:
    """Count on stderr while something long runs, if a person is watching; `advance(n)` says that n more are done."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if not quiet and sys.stderr.isatty():
            print(f"\r{what}: {done} {unit}", end="", file=sys.stderr, flush=True)

    yield advance
    if not quiet and sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)


def say(facts: dict[str, Any], as_json: bool, text: str) -> None:
    """Print what a command did: one JSON document, or a text for people."""
    click.echo(json.dumps({"format": 1, **facts}, ensure_ascii=False, allow_nan=False) if as_json else text)
