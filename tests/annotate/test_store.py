"""The database: its schema, what it refuses to open, and how it is settled."""

import sqlite3
import threading
import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from annotate.store.database import Turns, open_database
from annotate.store.tables import Base
from preferences.errors import BadInput


def test_migrations_make_the_tables(tmp_path: Path) -> None:
    database = open_database(str(tmp_path / "deep" / "a.db"), create=True)
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        pragmas = [connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous")]
        assert pragmas == ["wal", 2]  # 2 is FULL
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
    assert (tmp_path / "deep" / "a.db").stat().st_mode & 0o777 == 0o600  # it holds who the raters are
    open_database(str(tmp_path / "deep" / "a.db"))  # opening again changes nothing


def test_a_newer_database_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    open_database(str(path), create=True).engine.dispose()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(BadInput, match=r"newer version of Concord \(schema 9999\)"):
        open_database(str(path))


def test_what_is_no_database_of_ours(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database, whatever its name says, and long enough to be looked at\n" * 20)
    with pytest.raises(BadInput, match="not a database"):
        open_database(str(tmp_path / "text.db"))
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE cats (name TEXT)")
    with pytest.raises(BadInput, match=r"tables of something else \(cats\)"):
        open_database(str(tmp_path / "other.db"))
    with pytest.raises(BadInput, match="no database at"):
        open_database(str(tmp_path / "missing.db"))
    assert not (tmp_path / "missing.db").exists()
    with pytest.raises(BadInput, match="not installed"):
        open_database("oracle://scott@localhost/x")
    with pytest.raises(BadInput, match="not a database URL"):
        open_database("://")


def test_no_nul_is_stored(tmp_path: Path) -> None:
    """PostgreSQL can't, and a database may move there."""
    database = open_database(str(tmp_path / "a.db"), create=True)
    with pytest.raises(BadInput, match="NUL"), database.write() as session:
        session.execute(text("INSERT INTO failed_logins (login, at) VALUES (:login, 1)"), {"login": "a\0b"})


def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    database = open_database(str(tmp_path / "a.db"), create=True)
    insert = text("INSERT INTO failed_logins (login, at) VALUES ('x', 1)")
    with pytest.raises(RuntimeError), database.write() as session:
        session.execute(insert)
        raise RuntimeError
    with database.read() as session:
        assert session.execute(text("SELECT count(*) FROM failed_logins")).scalar() == 0


def test_turns_are_taken_in_the_order_of_asking() -> None:
    turns, order, asked = Turns(), [], threading.Event()

    def ask(number: int) -> None:
        asked.set()
        with turns:
            order.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    with turns:
        for thread in threads:
            asked.clear()
            thread.start()
            asked.wait()
            time.sleep(0.02)  # it has asked, and waits now
    for thread in threads:
        thread.join()
    assert order == list(range(20))


def test_turns_are_one_at_a_time() -> None:
    turns, inside, most = Turns(), [], []

    def work() -> None:
        for _ in range(200):
            with turns:
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (max(most), len(most)) == (1, 1600)
