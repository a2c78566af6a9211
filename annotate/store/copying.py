"""Copy all tables of one database into another, and tell by counts and hashes whether the two are the same.

Each function works in the transaction of its session. What is copied is read in one snapshot: a session of
`Database.read`, or of `Database.write` after `hold_writers`.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import String, Table, bindparam, delete, func, insert, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from annotate.store.access import Setting
from annotate.store.database import BUSY_SECONDS, MOVED
from annotate.store.tables import Base

CHUNK = 2000
TABLES: list[Table] = Base.metadata.sorted_tables  # a table stands behind those that it refers to
APPEND_ONLY = ("answers", "audit")
LOCK_SECONDS = 0.5  # below PostgreSQL's deadlock_timeout of 1 s, so that no rater's transaction is ended for ours


class Content(NamedTuple):
    """How many rows a table has, and a SHA-256 over them that is the same on every kind of database."""

    rows: int
    sha256: str


Advance = Callable[[int], Any]  # is told how many more rows are done


def contents(session: Session, advance: Advance = lambda count: None) -> dict[str, Content]:
    """{table: its content}."""
    found = {}
    for table in TABLES:
        count, digest = 0, hashlib.sha256()
        for rows in read_rows(session, table):
            for row in rows:
                digest.update(canonical(row))
            count += len(rows)
            advance(len(rows))
        found[table.name] = Content(count, digest.hexdigest())
    return found


def read_rows(session: Session, table: Table) -> Iterator[list[Any]]:
    """The rows of a table in the order of its primary key, in chunks; the order is that of bytes on every database."""
    on_postgresql = _dialect(session) == "postgresql"
    order = [
        column.collate("C") if on_postgresql and isinstance(column.type, String) else column
        for column in table.primary_key
    ]
    result = session.execute(select(table).order_by(*order), execution_options={"yield_per": CHUNK})
    for rows in result.partitions():
        yield list(rows)


def canonical(row: Any) -> bytes:
    """One line for one row: equal rows give equal lines, wherever they are stored."""
    values = [value + 0.0 if isinstance(value, float) else value for value in row]  # -0.0 is 0.0 on SQLite
    return json.dumps(values, sort_keys=True).encode() + b"\n"


def copy_rows(source: Session, target: Session, advance: Advance = lambda count: None) -> None:
    """Copy every row of `source` into the empty tables of `target`, ids included."""
    for table in TABLES:
        for rows in read_rows(source, table):
            # A group may have become part of one with a higher id, which is not there yet: told when all are.
            values = [dict(row._mapping) | ({"joined_id": None} if table.name == "groups" else {}) for row in rows]
            target.execute(insert(table), values)
            advance(len(rows))
        if table.name == "groups":
            joined = select(table.c.id, table.c.joined_id).where(table.c.joined_id.is_not(None))
            pairs = [{"group": group, "into": into} for group, into in source.execute(joined)]
            if pairs:
                statement = update(table).where(table.c.id == bindparam("group")).values(joined_id=bindparam("into"))
                target.connection().execute(statement, pairs)
    settle_sequences(target)


def settle_sequences(session: Session) -> None:
    """Let PostgreSQL's ids go on after the largest one; SQLite looks for itself."""
    if _dialect(session) != "postgresql":
        return
    for table in TABLES:
        if [column.name for column in table.primary_key] == ["id"]:
            largest = session.scalar(select(func.max(table.c.id)))
            sequence = func.pg_get_serial_sequence(table.name, "id")
            session.execute(select(func.setval(sequence, largest or 1, largest is not None)))


def empty_tables(session: Session) -> None:
    """Delete every row. The append-only tables allow it inside `triggers_off` only."""
    for table in reversed(TABLES):
        session.execute(delete(table))


@contextmanager
def triggers_off(session: Session) -> Iterator[None]:
    """The append-only triggers are gone for this transaction, and stand again when the block has ended well."""
    connection = session.connection()
    if _dialect(session) == "sqlite":
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        off = [(f"DROP TRIGGER {name}", sql) for name, sql in connection.exec_driver_sql(query)]
    else:
        off = [
            (f"ALTER TABLE {table} DISABLE TRIGGER USER", f"ALTER TABLE {table} ENABLE TRIGGER USER")
            for table in APPEND_ONLY
        ]
    for drop, _ in off:
        connection.exec_driver_sql(drop)
    yield
    for _, make in off:
        connection.exec_driver_sql(make)


def hold_writers(session: Session) -> None:
    """Let nobody else write until this transaction ends; readers don't notice.

    On SQLite a writing transaction has the only lock anyway. Raises OperationalError if others don't let go in
    BUSY_SECONDS.
    """
    if _dialect(session) != "postgresql":
        return
    names = ", ".join(table.name for table in TABLES)
    session.execute(text(f"SET LOCAL lock_timeout = {int(LOCK_SECONDS * 1000)}"))
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            with session.begin_nested():
                session.execute(text(f"LOCK TABLE {names} IN EXCLUSIVE MODE"))
            break
        except OperationalError:
            if time.monotonic() > until:
                raise
    session.execute(text("SET LOCAL lock_timeout = DEFAULT"))


def mark_moved(session: Session, where: str) -> None:
    """Note that the database is now at `where` (no password in it), and let it refuse every change from now on.

    It is the database that refuses, so that also a server which has it open can't store an answer that nobody will
    find again.
    """
    session.execute(insert(Setting).values(name="moved_to", value=where))
    connection = session.connection()
    if _dialect(session) == "sqlite":
        for table in TABLES:
            for verb in ("INSERT", "UPDATE", "DELETE"):
                connection.exec_driver_sql(
                    f"CREATE TRIGGER {table.name}_moved_{verb.lower()} BEFORE {verb} ON {table.name} "
                    f"BEGIN SELECT RAISE(ABORT, '{MOVED}'); END"
                )
        return
    connection.exec_driver_sql(
        f"CREATE FUNCTION moved() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{MOVED}'; END $$"
    )
    for table in TABLES:
        connection.exec_driver_sql(
            f"CREATE TRIGGER {table.name}_moved BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table.name} "
            "FOR EACH STATEMENT EXECUTE FUNCTION moved()"
        )


def _dialect(session: Session) -> str:
    return session.get_bind().dialect.name
