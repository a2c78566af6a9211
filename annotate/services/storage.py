"""Back a whole database up to one file, restore it, move it to another database; all of it while a server runs."""

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from annotate.store.access import Link, Login, Token
from annotate.store.copying import (
    TABLES,
    Advance,
    Content,
    canonical,
    contents,
    copy_rows,
    empty_tables,
    hold_writers,
    mark_moved,
    read_rows,
    triggers_off,
)
from annotate.store.database import MOVED, Database, open_database, public_url
from annotate.store.tables import Answer, Audit, Person, Project
from preferences.errors import BadInput

BESIDE = ("-wal", "-shm", "-journal")  # files that SQLite keeps beside a database


# --- back up ------------------------------------------------------------------------------------------------------


def back_up(
    database: Database, file: Path, *, overwrite: bool = False, advance: Advance = lambda count: None
) -> dict[str, Content]:
    """Write the state of a database at this moment to `file`: an SQLite database, whatever kind the original is.

    It appears whole and checked or not at all, readable by its owner only. Returns what is in it. Raises BadInput
    where the file can't be written, is there already, or does not hold what the database does.
    """
    _check_target(database, file, overwrite)
    with _temporary_file(file) as temporary:
        with database.read() as session:
            if database.engine.dialect.name == "sqlite":
                before = contents(session, advance)  # the first look is also what the snapshot is of
                with closing(sqlite3.connect(temporary)) as copy:
                    session.connection().connection.driver_connection.backup(copy)  # type: ignore[union-attr]
                made = open_database(str(temporary))
            else:
                made = open_database(str(temporary))
                with made.write() as target:
                    copy_rows(session, target, advance)
                before = contents(session, advance)
        with closing_engine(made), made.read() as session:
            _check_whole(session, file)
            if contents(session) != before:
                raise BadInput(
                    f"the backup {file} does not hold what the database does, and was thrown away; try again"
                )
        with closing(sqlite3.connect(temporary)) as copy:
            copy.execute("PRAGMA journal_mode=DELETE").fetchall()  # one file, also for who may not write beside it
    return before


def _check_target(database: Database, file: Path, overwrite: bool) -> None:
    if not file.parent.is_dir():
        raise BadInput(f"{file}: there is no folder {file.parent}; make it, or name another file")
    if not os.path.lexists(file):
        return
    if not file.is_file():
        raise BadInput(f"{file} is not a file; name one to write the backup to")
    if _is_its_file(database, file):
        raise BadInput(f"{file} is the database itself; name another file for its backup")
    if not overwrite:
        raise BadInput(f"{file} is there already; name another file, or say --overwrite to replace it")
    if any(Path(f"{file}{end}").exists() for end in BESIDE):
        raise BadInput(f"{file} is a database that is in use, so --overwrite leaves it alone; name another file")


def _is_its_file(database: Database, file: Path) -> bool:
    path = database.engine.url.database
    on_sqlite = database.engine.dialect.name == "sqlite" and path is not None
    return bool(on_sqlite and file.exists() and os.path.samefile(file, str(path)))


@contextmanager
def _temporary_file(file: Path) -> Iterator[Path]:
    """An empty file beside `file`, for its owner only; it takes `file`'s place if the block ends well."""
    try:
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    except OSError as error:
        raise BadInput(f"cannot write to {file.parent}: {error.strerror}") from None
    temporary = Path(name)
    try:
        try:
            yield temporary
        except sqlite3.Error as error:
            raise BadInput(f"cannot write the backup {file}: {error}") from None
        except BadInput as error:
            raise type(error)(str(error).replace(str(temporary), str(file))) from None
        os.fsync(handle)
        os.replace(temporary, file)
        _flush_folder(file.parent)
    finally:
        os.close(handle)
        for end in ("", *BESIDE):
            Path(f"{temporary}{end}").unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_whole(session: Session, file: Path) -> None:
    said = session.connection().exec_driver_sql("PRAGMA integrity_check").scalar()
    if said != "ok":
        raise BadInput(f"{file} is damaged ({said}); use another backup")
    if session.connection().exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
        raise BadInput(f"{file} is damaged (rows refer to rows that are not there); use another backup")


# --- restore ------------------------------------------------------------------------------------------------------


def find_backup(file: Path) -> None:
    """Raises BadInput if there is no such file."""
    if not file.is_file():
        raise BadInput(f"no backup at {file}; `annotate backup FILE` makes one")


def restore(
    database: Database, file: Path, *, overwrite: bool = False, advance: Advance = lambda count: None
) -> tuple[dict[str, Content], Path | None]:
    """Give a database the state that the backup `file` holds, in one transaction.

    Login sessions and links that were handed out are not restored, since those that ended after the backup would be
    good again; of API tokens only those that the database still has are, unless it was empty. Returns what the backup
    held, and where the state before was saved to (None if there was nothing). Raises BadInput if the file is no
    backup, or of a newer version; and, without `overwrite`, if the database holds answers that the backup lacks.
    """
    if _is_its_file(database, file):
        raise BadInput(f"{file} is the database itself; name the backup to restore")
    with _opened_backup(file) as backup, backup.read() as source:
        wanted, known = contents(source), _answers(source)  # before anybody has to wait
        with database.write() as target:
            hold_writers(target)
            lost = len(_answers(target) - known)
            if lost and not overwrite:
                raise BadInput(
                    f"{database.name} holds {lost} answers that the backup {file} lacks; say --overwrite to go back to"
                    " the backup all the same, and the state of now is saved to a file first"
                )
            tokens, saved = None, None
            if target.scalar(select(func.count(Project.id))) or target.scalar(select(func.count(Person.id))):
                tokens, saved = set(target.scalars(select(Token.token_hash))), _beside(database, file)
                back_up(database, saved)
            with triggers_off(target):
                empty_tables(target)
                copy_rows(source, target, advance)
            if contents(target) != wanted:
                raise BadInput(f"{database.name} did not take what {file} holds, and is as it was; try again")
            _end_what_may_have_ended(target, tokens)
            detail = {"answers": wanted["answers"].rows, "lost": lost}
            target.add(Audit(project_id=None, at=time.time(), action="restored", detail=detail))
    return wanted, saved


def _end_what_may_have_ended(session: Session, tokens: set[str] | None) -> None:
    """Sign everybody out, and make links and tokens void, but for `tokens`, which were good before the restore."""
    session.execute(delete(Login))
    session.execute(delete(Link))
    if tokens is not None:
        session.execute(delete(Token).where(Token.token_hash.not_in(tokens)))


def _answers(session: Session) -> set[bytes]:
    return {canonical(row) for rows in read_rows(session, Answer.__table__) for row in rows}  # type: ignore[arg-type]


def _beside(database: Database, file: Path) -> Path:
    """A new name for the state before a restore: beside the database, or beside the backup for one on a server."""
    at = Path(str(database.engine.url.database)) if database.engine.dialect.name == "sqlite" else file
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path, number = at.with_name(f"{at.name}.before-restore-{stamp}"), 1
    while path.exists():
        path, number = at.with_name(f"{at.name}.before-restore-{stamp}-{number}"), number + 1
    return path


@contextmanager
def _opened_backup(file: Path) -> Iterator[Database]:
    """A copy of a backup, checked and brought to the newest schema; the backup itself stays as it is."""
    find_backup(file)
    folder = Path(tempfile.mkdtemp(prefix="annotate-restore-"))
    copy = folder / "backup.db"
    try:
        try:
            _copy_backup(file, copy)
            database = open_database(str(copy))
        except sqlite3.Error as error:
            raise BadInput(f"{file} is not a backup that can be read ({error}); use another one") from None
        except BadInput as error:
            raise BadInput(str(error).replace(str(copy), str(file))) from None
        with closing_engine(database):
            with database.read() as session:
                _check_whole(session, file)
            yield database
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy_backup(file: Path, copy: Path) -> None:
    with (
        closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)
        if target.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone() is None:
            raise BadInput(f"{file} is not a backup of annotate; name a file that `annotate backup` wrote")
        # A database that has moved may be all that is left when its new place is lost.
        query = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND sql LIKE ?"
        if closed := target.execute(query, (f"%{MOVED}%",)).fetchall():
            for (name,) in closed:
                target.execute(f"DROP TRIGGER {name}")
            target.execute("DELETE FROM settings WHERE name = 'moved_to'")
            target.commit()


# --- move ---------------------------------------------------------------------------------------------------------


def move(source: Database, target: Database, advance: Advance = lambda count: None) -> dict[str, Content]:
    """Copy a database into an empty one, compare the two, and let the first refuse every change from then on.

    Who writes to `source` meanwhile waits, and then fails. Returns what was moved. Raises BadInput if `target` is not
    empty or did not take everything; then `source` is as it was.
    """
    where = public_url(target.engine.url)
    if where == public_url(source.engine.url):
        raise BadInput(f"{where} is where the database is; name another one to move it to")
    with target.read() as session:
        _check_empty(session, where)
    with source.write() as from_session:
        hold_writers(from_session)
        with target.write() as session:
            hold_writers(session)
            _check_empty(session, where)
            copy_rows(from_session, session, advance)
            moved = contents(session)
            if moved != contents(from_session):
                raise BadInput(f"{where} did not take everything, and {source.name} is as it was; try again")
        # The copy is safe before the original is closed: whatever happens in between, one of them can be used.
        mark_moved(from_session, where)
    return moved


def _check_empty(session: Session, where: str) -> None:
    for table in TABLES:
        if session.execute(select(table).limit(1)).first() is not None:
            raise BadInput(f"{where} is not empty (its table {table.name} has rows); name a new database to move to")


@contextmanager
def closing_engine(database: Database) -> Iterator[None]:
    try:
        yield
    finally:
        database.engine.dispose()


def facts(found: dict[str, Content]) -> dict[str, Any]:
    """Counts and hashes as a JSON document says them."""
    return {
        "tables": {name: content.rows for name, content in found.items()},
        "sha256": {name: content.sha256 for name, content in found.items()},
    }
