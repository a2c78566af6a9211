"""A full disk and a lost connection: one sentence, nothing half-stored, and the next try works."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, func, insert, select, text

from annotate.services.storage import back_up, move, restore
from annotate.store.access import FailedLogin
from annotate.store.database import Database, DatabaseFailed, open_database
from annotate.store.tables import Answer, Audit, Member
from preferences.errors import BadInput
from tests.annotate.conftest import Annotate
from tests.annotate.filled import fill
from tests.annotate.released import make
from tests.annotate.test_copying import next_answer, state


@contextmanager
def nearly_full(path: Path, pages: int) -> Iterator[None]:
    """Let the SQLite database at `path` grow by so many pages at most: SQLite says then what it says of a full disk."""

    def limit(connection, _record) -> None:
        (_, _, file) = connection.execute("PRAGMA database_list").fetchone()
        if Path(file).name == path.name or Path(file).name.startswith(f".{path.name}."):
            used = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count={used + pages}")

    event.listen(Engine, "connect", limit)
    try:
        yield
    finally:
        event.remove(Engine, "connect", limit)


@contextmanager
def reopened(path: Path) -> Iterator[Database]:
    database = open_database(str(path))
    yield database
    database.engine.dispose()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An SQLite database with rows in every table."""
    path = tmp_path / "a.db"
    database = open_database(str(path), create=True)
    with database.write() as session:
        fill(session)
    database.engine.dispose()
    return path


def test_a_full_disk_stores_nothing_of_a_transaction(file: Path) -> None:
    with reopened(file) as database:
        before = state(database)
    rows = [{"at": 1.0, "action": "x", "detail": {"text": "y" * 1000}} for _ in range(100)]
    with nearly_full(file, pages=3), reopened(file) as database:
        with pytest.raises(DatabaseFailed, match=r"disk is full\), and nothing of this"), database.write() as session:
            session.add(Member(project_id=1, rater="late", role="rater", pseudonym="late"))
            session.flush()
            session.execute(insert(Audit), rows)
        assert state(database) == before
        next_answer(database)  # what is small still has room
    with reopened(file) as database, database.write() as session:
        session.execute(insert(Audit), rows)


def test_a_full_disk_during_an_upgrade_leaves_the_old_schema(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    make(str(path), "0002")
    with nearly_full(path, pages=4), pytest.raises(BadInput, match=r"old\.db: database or disk is full"):
        open_database(str(path))
    with reopened(path) as database:
        assert state(database)["answers"][0] == 5 and state(database)["answer_texts"][0] == 3


def test_a_full_disk_during_backup_restore_and_move(file: Path, tmp_path: Path) -> None:
    with reopened(file) as database:
        before = state(database)
        other = tmp_path / "other.db"
        open_database(str(other), create=True).engine.dispose()
        with database.write() as session:
            session.execute(insert(FailedLogin), [{"login": "x" * 60, "at": 1.0}] * 20_000)
        grown = state(database)
        backup = tmp_path / "backup"
        back_up(database, backup)
        with nearly_full(other, pages=20), reopened(other) as target:
            with pytest.raises(DatabaseFailed, match="full"):
                restore(target, backup)
            with pytest.raises(DatabaseFailed, match="full"):
                move(database, target)
            assert not any(rows for rows, _ in state(target).values())
        assert state(database) == grown
        next_answer(database)
        with reopened(other) as target:
            move(database, target)
            assert state(target)["answers"][0] == before["answers"][0] + 1


def test_no_room_for_the_file_of_a_backup(file: Path, tmp_path: Path, small_disk: Path) -> None:
    with reopened(file) as database:
        with database.write() as session:
            session.execute(insert(FailedLogin), [{"login": "x" * 60, "at": 1.0}] * 20_000)
        with pytest.raises(BadInput, match=r"backup.*full"):
            back_up(database, small_disk / "backup")
        assert list(small_disk.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one megabyte, where this may be made."""
    import subprocess

    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip("no right to mount a small disk here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def end_connections(database: Database) -> None:
    """What an administrator, or a restart of the server, does to those who are connected."""
    with database.engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )


def test_a_connection_lost_within_a_transaction(new_database: Callable[[], str]) -> None:
    url = new_database()
    database, administrator = open_database(url), open_database(url)
    with database.write() as session:
        fill(session)
    before = state(database)
    with pytest.raises(DatabaseFailed, match=r"\(.*terminat.*\), and nothing of this"), database.write() as session:
        session.add(Member(project_id=1, rater="late", role="rater", pseudonym="late"))
        session.flush()
        end_connections(administrator)
        session.execute(select(func.count(Answer.id)))
    with pytest.raises(DatabaseFailed, match="nothing of this was stored"), database.write() as session:
        session.add(Member(project_id=1, rater="late", role="rater", pseudonym="late"))
        session.flush()
        end_connections(administrator)  # and found out by the commit
    assert state(database) == before
    end_connections(administrator)  # while nobody does anything: no transaction fails for it
    assert next_answer(database) == 6
    for one in (database, administrator):
        one.engine.dispose()


def test_a_connection_lost_during_a_move(new_database: Callable[[], str], file: Path, tmp_path: Path) -> None:
    url = new_database()
    target, administrator = open_database(url), open_database(url)
    with reopened(file) as source:
        before = state(source)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if done == count:
                end_connections(administrator)

        with pytest.raises(DatabaseFailed, match="nothing of this was stored"):
            move(source, target, advance)
        assert state(source) == before and not any(rows for rows, _ in state(target).values())
        next_answer(source)
        move(source, target)
        with pytest.raises(BadInput, match="has moved"):
            open_database(str(file))
    for one in (target, administrator):
        one.engine.dispose()


def test_servers_that_open_a_new_database_at_once(on_postgresql: Annotate) -> None:
    """One makes the tables, the others wait."""
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda name: on_postgresql("project", "create", name), "abc"))
    assert [(one.returncode, one.stderr) for one in made] == [(0, "")] * 3
