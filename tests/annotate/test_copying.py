"""Backup, restore and move, on SQLite and on a real PostgreSQL, with writers at work."""

import secrets
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.exc import DatabaseError

from annotate.services.storage import back_up, move, restore
from annotate.store.access import FailedLogin, Link, Login, Setting, Token
from annotate.store.copying import contents
from annotate.store.database import Database, DatabaseFailed, open_database
from annotate.store.tables import Answer, Audit, Base, Member, Person
from preferences.errors import BadInput
from tests.annotate.filled import HASH, fill
from tests.annotate.released import make

KINDS = ["sqlite", "postgresql"]
NOT_RESTORED = {"logins", "links", "audit"}  # the last one gets an entry more


@pytest.fixture
def fresh(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Database]]:
    """Makes an empty database of a kind."""
    made: list[Database] = []

    def make(kind: str) -> Database:
        name = str(tmp_path / f"{len(made)}.db") if kind == "sqlite" else request.getfixturevalue("new_database")()
        made.append(open_database(name, create=True))
        return made[-1]

    yield make
    for database in made:
        database.engine.dispose()


@pytest.fixture
def filled(fresh: Callable[[str], Database]) -> Callable[[str], Database]:
    def make(kind: str) -> Database:
        database = fresh(kind)
        with database.write() as session:
            fill(session)
        return database

    return make


def where(database: Database) -> str:
    return database.engine.url.render_as_string(hide_password=False)


def state(database: Database) -> dict[str, tuple[int, str]]:
    with database.read() as session:
        return dict(contents(session))


def without(found: dict[str, tuple[int, str]], names: set[str]) -> dict[str, tuple[int, str]]:
    return {name: content for name, content in found.items() if name not in names}


def next_answer(database: Database) -> int:
    """Store an answer of one more rater, as an import does, and return its id."""
    with database.write() as session:
        name = secrets.token_hex(8)
        member = Member(project_id=1, rater=name, role="rater", pseudonym=name)
        session.add(member)
        session.flush()
        answer = Answer(item_id=2, member_id=member.id, kind="imported", ranks=[1, 2], flags=[])
        session.add(answer)
        session.flush()
        return answer.id


@contextmanager
def writer(database: Database) -> Iterator[tuple[list[int], list[BaseException]]]:
    """A thread that stores answers all the time, through a Database of its own as a server would."""
    stored: list[int] = []
    failures: list[BaseException] = []
    stop, begun = threading.Event(), threading.Event()

    def work() -> None:
        own = open_database(where(database) if "://" in database.name else database.name)
        while not stop.is_set():
            try:
                stored.append(next_answer(own))
            except BaseException as error:
                failures.append(error)
                break
            finally:
                begun.set()
        own.engine.dispose()

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait(30)
    try:
        yield stored, failures
    finally:
        stop.set()
        thread.join(60)


def test_filled_has_rows_in_every_table(filled: Callable[[str], Database]) -> None:
    assert min(rows for rows, _ in state(filled("sqlite")).values()) >= 2
    assert set(state(filled("sqlite"))) == set(Base.metadata.tables)


@pytest.mark.parametrize("kind", KINDS)
def test_a_backup_is_one_private_file_that_holds_everything(
    filled: Callable[[str], Database], tmp_path: Path, kind: str
) -> None:
    database, file = filled(kind), tmp_path / "backups" / "today.db"
    with pytest.raises(BadInput, match="no folder"):
        back_up(database, file)
    file.parent.mkdir()
    assert back_up(database, file) == state(database)
    assert [one.name for one in file.parent.iterdir()] == ["today.db"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro&immutable=1", uri=True)) as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert raw.execute("SELECT count(*) FROM answers").fetchone() == (5,)
        triggers = raw.execute("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'").fetchone()
        assert triggers == (4,)

    with pytest.raises(BadInput, match="is there already"):
        back_up(database, file)
    next_answer(database)
    assert back_up(database, file, overwrite=True)["answers"].rows == 6


@pytest.mark.parametrize("kind", KINDS)
def test_a_backup_while_raters_write_is_one_moment(
    filled: Callable[[str], Database], tmp_path: Path, kind: str
) -> None:
    """Every answer has its rater, and all that were stored before it began are in it."""
    database = filled(kind)
    with writer(database) as (stored, failures):
        for number in range(5):
            before = len(stored)
            found = back_up(database, tmp_path / f"{number}.backup")
            assert found["answers"].rows - 5 >= before
            assert found["answers"].rows - 5 == found["members"].rows - 3
    assert not failures and len(stored) > 5
    assert not [name for name in tmp_path.iterdir() if name.name.startswith(".")]


def test_what_a_backup_must_not_replace(filled: Callable[[str], Database], tmp_path: Path) -> None:
    database, other = filled("sqlite"), filled("sqlite")
    with pytest.raises(BadInput, match="is the database itself"):
        back_up(database, Path(database.name), overwrite=True)
    with pytest.raises(BadInput, match="is in use"):
        back_up(database, Path(other.name), overwrite=True)
    with pytest.raises(BadInput, match="is not a file"):
        back_up(database, tmp_path, overwrite=True)
    (tmp_path / "link").symlink_to(database.name)
    with pytest.raises(BadInput, match="is the database itself"):
        back_up(database, tmp_path / "link", overwrite=True)


@pytest.mark.parametrize("into", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_backup_restores_on_any_database(
    filled: Callable[[str], Database], fresh: Callable[[str], Database], tmp_path: Path, kind: str, into: str
) -> None:
    database, target = filled(kind), fresh(into)
    back_up(database, tmp_path / "backup")
    kept = (tmp_path / "backup").read_bytes()
    found, saved = restore(target, tmp_path / "backup")
    assert saved is None and (tmp_path / "backup").read_bytes() == kept
    assert found == state(database)
    assert without(state(target), NOT_RESTORED) == without(state(database), NOT_RESTORED)
    with target.read() as session:
        assert session.scalar(select(func.count(Login.id))) == session.scalar(select(func.count(Link.id))) == 0
        assert session.scalar(select(func.count(Token.id))) == 2
        assert session.scalars(select(Audit).order_by(Audit.id.desc())).first().action == "restored"
    assert next_answer(target) == 6  # ids go on
    for statement in ("UPDATE answers SET ranks = '[3]'", "DELETE FROM audit", "DELETE FROM answers"):
        with pytest.raises(DatabaseError, match="append-only"), target.write() as session:
            session.execute(text(statement))


@pytest.mark.parametrize("kind", KINDS)
def test_a_restore_loses_no_answer_unasked(filled: Callable[[str], Database], tmp_path: Path, kind: str) -> None:
    database, folder = filled(kind), tmp_path / "backups"
    folder.mkdir()
    back_up(database, folder / "backup")
    restore(database, folder / "backup")  # the same answers: nothing to lose
    next_answer(database)
    with database.write() as session:
        session.execute(update(Token).where(Token.id == 1).values(token_hash="f" * 64))  # revoked, and a new one
        session.add(Login(person_id=1, token_hash=HASH, csrf_token="c", created_at=1.0, expires_at=4e9))
    before = state(database)
    with pytest.raises(BadInput, match=r"holds 1 answers that the backup .*backup lacks; say --overwrite"):
        restore(database, folder / "backup")
    assert state(database) == before

    _, saved = restore(database, folder / "backup", overwrite=True)
    assert saved is not None and stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert saved.parent == (tmp_path if kind == "sqlite" else folder)
    assert state(database)["answers"][0] == 5
    with database.read() as session:  # what was revoked since stays revoked, what was made since is not in the backup
        assert session.scalars(select(Token.id)).all() == [2]
        assert session.scalars(select(Login)).all() == []
    _, again = restore(database, saved, overwrite=True)  # and back
    assert again != saved and state(database)["answers"] == before["answers"]


@pytest.mark.parametrize("kind", KINDS)
def test_restoring_while_raters_write(filled: Callable[[str], Database], tmp_path: Path, kind: str) -> None:
    """Each restore takes all or nothing, and what was stored before it is in the file that it saves."""
    database = filled(kind)
    back_up(database, tmp_path / "backup")
    with writer(database) as (stored, failures):
        before = len(stored)
        _, saved = restore(database, tmp_path / "backup", overwrite=True)
        assert saved is not None
        copy = open_database(str(saved))
        assert state(copy)["answers"][0] - 5 >= before
        copy.engine.dispose()
        after = len(stored)
        while len(stored) < after + 5 and not failures:
            threading.Event().wait(0.01)
    assert not failures
    found = state(database)
    assert found["answers"][0] - 5 == found["members"][0] - 3 > 0


@pytest.mark.parametrize("into", KINDS)
@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_a_backup_of_an_older_version(
    fresh: Callable[[str], Database], tmp_path: Path, revision: str, into: str
) -> None:
    """As the file of a database that an earlier release wrote: it comes up to date on the way, and stays as it is."""
    make(str(tmp_path / "old"), revision)
    kept, target = (tmp_path / "old").read_bytes(), fresh(into)
    restore(target, tmp_path / "old")
    assert (tmp_path / "old").read_bytes() == kept
    found = state(target)
    assert (found["answers"][0], found["answer_texts"][0], found["item_tags"][0], found["slots"][0]) == (5, 3, 5, 6)
    assert next_answer(target) == 6


def test_what_is_no_backup(filled: Callable[[str], Database], fresh: Callable[[str], Database], tmp_path: Path) -> None:
    database, target = filled("sqlite"), fresh("sqlite")
    with pytest.raises(BadInput, match="no backup at"):
        restore(target, tmp_path / "missing")
    with pytest.raises(BadInput, match="is the database itself"):
        restore(target, Path(target.name))
    (tmp_path / "text").write_text("no database, whatever its name says, and long enough to be looked at\n" * 20)
    with pytest.raises(BadInput, match="not a backup that can be read"):
        restore(target, tmp_path / "text")
    for name in ("empty", "cats"):
        with closing(sqlite3.connect(tmp_path / name)) as raw:
            raw.execute("CREATE TABLE cats (name TEXT)" if name == "cats" else "PRAGMA user_version = 1")
        with pytest.raises(BadInput, match="not a backup of annotate"):
            restore(target, tmp_path / name)
    file = tmp_path / "backup"
    back_up(database, file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=r"backup is (not a backup that can be read|damaged)"):
        restore(target, file)
    file.write_bytes(whole)
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
        raw.commit()
    with pytest.raises(BadInput, match=r"backup was written by a newer version of Concord \(schema 9999\)"):
        restore(target, file)
    assert state(target)["projects"][0] == 0


@pytest.mark.parametrize("into", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_database_moves_whole_and_the_old_one_refuses(
    filled: Callable[[str], Database], fresh: Callable[[str], Database], kind: str, into: str
) -> None:
    source, target = filled(kind), fresh(into)
    before = state(source)
    assert move(source, target) == before == state(target)
    assert next_answer(target) == 6
    with target.write() as session:
        session.add(Person(login="new", password_hash="", created_at=1.0))

    for statement in (insert(FailedLogin).values(login="x", at=1.0), update(Person).values(name="x")):
        with (
            pytest.raises(DatabaseFailed, match="has moved, and nothing of this was stored"),
            source.write() as session,
        ):
            session.execute(statement)
    assert without(state(source), {"settings"}) == without(before, {"settings"})
    with pytest.raises(BadInput, match=r"has moved to .*; say --database") as told:
        open_database(where(source) if kind == "postgresql" else source.name)
    assert (str(target.engine.url.database) if into == "sqlite" else "postgresql") in str(told.value)
    with pytest.raises(BadInput, match="is not empty"):
        move(target, filled("sqlite"))


@pytest.mark.parametrize("kind", KINDS)
def test_moving_while_raters_write_loses_nothing(
    filled: Callable[[str], Database], fresh: Callable[[str], Database], kind: str
) -> None:
    """All that a rater saw acknowledged is at the new place, and the server on the old one gets the error."""
    source, target = filled(kind), fresh("postgresql" if kind == "sqlite" else "sqlite")
    with writer(source) as (stored, failures):
        move(source, target)
        threading.Event().wait(0.2)
    assert len(failures) == 1 and isinstance(failures[0], DatabaseFailed), failures
    with target.read() as session:
        assert session.scalars(select(Answer.id).where(Answer.id > 5).order_by(Answer.id)).all() == stored


def test_the_password_of_the_new_place_is_not_kept(
    filled: Callable[[str], Database], new_database: Callable[[], str]
) -> None:
    source = filled("sqlite")
    url = open_database(new_database()).engine.url
    secret = url.set(username=url.username or "postgres", password="s3cret").update_query_dict(
        {"sslpassword": "s3cret"}
    )
    target = open_database(secret.render_as_string(hide_password=False))
    assert "s3cret" not in target.name
    move(source, target)
    with source.read() as session:
        moved = session.scalar(select(Setting.value).where(Setting.name == "moved_to"))
    assert moved is not None and "s3cret" not in moved and "***" not in moved
    target.engine.dispose()


def test_a_moved_database_is_a_backup_when_its_new_place_is_lost(
    filled: Callable[[str], Database], fresh: Callable[[str], Database]
) -> None:
    source, target, third = filled("sqlite"), fresh("sqlite"), fresh("sqlite")
    move(source, target)
    restore(third, Path(source.name))
    assert next_answer(third) == 6
    assert "moved_to" not in str(state(third))
    with third.read() as session:
        assert session.scalars(select(Setting.name)).all() == ["key 1", "key 2"]


def test_a_move_that_fails_leaves_both_as_they_were(
    filled: Callable[[str], Database], fresh: Callable[[str], Database]
) -> None:
    """PostgreSQL keeps no NUL character, which SQLite does, though nothing of ours stores one there any more."""
    source, target = filled("sqlite"), fresh("postgresql")
    with source.write() as session:
        session.execute(text("UPDATE people SET name = 'a' || char(0) || 'b' WHERE id = 1"))
    before = state(source)
    with pytest.raises(BadInput, match="NUL"):
        move(source, target)
    assert state(target)["people"][0] == 0 and state(source) == before
    next_answer(source)
