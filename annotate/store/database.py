"""Open a database by path or URL, bring it up to date, and hand out transactions."""

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DataError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session

from preferences.errors import BadInput

BUSY_SECONDS = 30
THREADS = 16  # that a server works with: more would only wait for each other
UPGRADE_LOCK = 0x436F6E636F7264  # a number that no other program's advisory locks have by chance: "Concord"
MOVED = "this database has moved"  # how the triggers of a database refuse a write after `annotate move`


NUL = "a text has a NUL character (U+0000) in it, which can't be stored"


class DatabaseFailed(BadInput):
    """The database can't: a full disk, a lock that does not go away, a lost connection. Nothing was stored."""


class Turns:
    """A lock that is given in the order in which threads asked for it, so that nobody is passed over for long."""

    def __init__(self) -> None:
        self._state = threading.Lock()  # held only to look at, or change, what follows
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()  # one a thread, which releasing wakes up

    def __enter__(self) -> None:
        with self._state:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()

    def __exit__(self, *_error: object) -> None:
        with self._state:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


class Database:
    """An engine whose transactions say whether they write.

    On SQLite a writer takes its lock at once (BEGIN IMMEDIATE), so no transaction fails half-way because another
    one wrote first, and readers never wait for a writer (WAL).
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name
        self._writing = engine.execution_options(begin="BEGIN IMMEDIATE")
        isolated = {} if engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
        self._reading = engine.execution_options(**isolated)
        # SQLite has one writer at a time, and who finds it busy sleeps and tries again: here they wait in line instead.
        self._turn: AbstractContextManager[Any] = Turns() if engine.dialect.name == "sqlite" else nullcontext()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one state of the database. It is never committed. Raises as `write` does."""
        with self._one_sentence(), Session(self._reading, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that is committed, to the disk, if the block ends well, and rolled back if it raises.

        Raises DatabaseFailed where the database itself can't: a full disk, a lost connection, a lock that stays.
        """
        with (
            self._one_sentence(),
            self._turn,
            Session(self._writing, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def _one_sentence(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, DataError) as error:
            if isinstance(error, DataError) and "NUL" in str(error.orig):  # trying again would not help
                raise BadInput(NUL) from error
            reason = str(error.orig).splitlines()[0]
            raise DatabaseFailed(
                f"the database {self.name} failed ({reason}), and nothing of this was stored"
            ) from error
        except DatabaseError as error:
            if MOVED not in str(error.orig):
                raise
            raise DatabaseFailed(
                f"the database {self.name} has moved, and nothing of this was stored; start this again with --database"
                " and its new place, which any `annotate` command on the old one tells"
            ) from error


def open_database(where: str | None, *, create: bool = False) -> Database:
    """Open the database at `where`: a path of an SQLite file or an SQLAlchemy URL; None means data/annotate.db.

    It is brought to the newest schema. Raises BadInput if it can't be opened, if it was written by a newer version,
    if it has moved elsewhere, or if the SQLite file is missing and `create` is false.
    """
    url = _url(where or "data/annotate.db")
    name = public_url(url)
    if url.get_backend_name() == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise BadInput(f"{where}: a database in memory is gone when the command ends; name a file")
        if not create and not Path(name).is_file():
            raise BadInput(
                f"no database at {name}; `annotate project create NAME` makes one, or say where it is with --database"
            )
        if create:
            try:
                Path(name).parent.mkdir(parents=True, exist_ok=True)
                # For its owner alone: it holds who the raters are. The files beside it that SQLite makes follow it.
                Path(name).touch(mode=0o600, exist_ok=True)
            except OSError as error:
                raise BadInput(f"cannot make the database {name}: {error.strerror}") from None
    try:
        if url.get_backend_name() == "sqlite":
            engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS}, pool_size=THREADS)
        else:
            # pre_ping: a database server that was restarted costs no rater an answer
            engine = create_engine(url, pool_pre_ping=True, pool_size=THREADS)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise BadInput(
            f"{name}: the driver of this database is not installed ({error}); for PostgreSQL run"
            " `pip install 'psycopg[binary]'` and write postgresql+psycopg://"
        ) from None
    if engine.dialect.name == "sqlite":
        _settle_sqlite(engine)
    database = Database(engine, name)
    try:
        with database._writing.connect() as connection, _foreign_keys_off(connection), connection.begin():
            _upgrade(connection, name)
    except OperationalError as error:
        raise BadInput(f"cannot open the database {name}: {str(error.orig).splitlines()[0]}") from None
    except DatabaseError as error:
        raise BadInput(f"{name} is not a database that annotate can use: {str(error.orig).splitlines()[0]}") from None
    return database


def public_url(url: URL) -> str:
    """A database's URL without passwords, or the path of an SQLite file: what may be shown and stored."""
    if url.get_backend_name() == "sqlite":
        return os.path.abspath(str(url.database))
    query = {key: value for key, value in url.query.items() if "pass" not in key.lower()}
    return URL.create(url.drivername, url.username, None, url.host, url.port, url.database, query).render_as_string()


def _url(where: str) -> URL:
    if "://" not in where:
        return URL.create("sqlite", database=os.path.abspath(where))
    try:
        return make_url(where)
    except (ArgumentError, ValueError):
        raise BadInput(f"{where}: not a database URL; write postgresql+psycopg://user@host/name, or a path") from None


def _settle_sqlite(engine: Engine) -> None:
    """Durable, concurrent, and with BEGIN in our own hands (the driver's own would come too late for DDL)."""

    @event.listens_for(engine, "connect")
    def _connect(connection, _record) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "before_cursor_execute")
    def _no_nul(_connection, _cursor, _statement, parameters, _context, _many) -> None:
        # PostgreSQL refuses it, and a database that moves there must not fail on it.
        rows = parameters if parameters and isinstance(parameters[0], tuple) else [parameters]
        if any(isinstance(value, str) and "\0" in value for row in rows for value in row):
            raise BadInput(NUL)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


@contextmanager
def _foreign_keys_off(connection: Connection) -> Iterator[None]:
    """SQLite changes a table by making it anew, during which what refers to it would be in the way."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def _upgrade(connection: Connection, name: str) -> None:
    """Run the migrations that this database lacks, in the caller's transaction."""
    from alembic import command
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    if connection.dialect.name == "postgresql":  # two servers that start at once take turns
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({UPGRADE_LOCK})")
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    _refuse_moved(connection, name)
    if current is None and (found := set(inspect(connection).get_table_names()) - {"alembic_version"}):
        raise BadInput(f"{name} holds tables of something else ({', '.join(sorted(found)[:3])}); name another database")
    if current == scripts.get_current_head():
        return
    if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
        raise BadInput(
            f"{name} was written by a newer version of Concord (schema {current}); update Concord to open it"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    if connection.dialect.name == "sqlite" and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
        raise BadInput(f"{name} could not be brought to the newest schema: rows refer to rows that are not there")


def _refuse_moved(connection: Connection, name: str) -> None:
    """Whoever goes on with a database that has moved would miss what is stored at its new place."""
    if not inspect(connection).has_table("settings"):
        return
    columns = {column["name"] for column in inspect(connection).get_columns("settings")}
    if columns != {"name", "value"}:
        return  # somebody else's table, of which the caller speaks
    moved = connection.exec_driver_sql("SELECT value FROM settings WHERE name = 'moved_to'").scalar()
    if moved is not None:
        password = ", with the password if it needs one" if "://" in moved else ""
        raise BadInput(f"{name} has moved to {moved}; say --database {moved}{password}")
