"""Databases of every released schema, with data in them, come up to the newest one on SQLite and on PostgreSQL."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, Connection, MetaData, Table, inspect, text
from sqlalchemy.exc import DatabaseError, IntegrityError

from annotate.store.database import Database, open_database
from annotate.store.tables import Base
from preferences.errors import BadInput
from tests.annotate.filled import fill
from tests.annotate.released import TEXTS, engine_of, make, upgrade

KINDS = ["sqlite", "postgresql"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def new_place(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[], str]:
    """Gives an SQLite path or the URL of an empty PostgreSQL database, one for each call."""
    if kind == "postgresql":
        return request.getfixturevalue("new_database")
    paths = iter(range(9))
    return lambda: str(tmp_path / f"{next(paths)}.db")


@pytest.fixture
def place(new_place: Callable[[], str]) -> str:
    return new_place()


@contextmanager
def opened(place: str, **options: Any) -> Iterator[Database]:
    database = open_database(place, **options)
    yield database
    database.engine.dispose()


def rows(connection: Connection, table: Table) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(table.select().order_by(*table.primary_key)).mappings()]


def dump(place: str) -> dict[str, list[dict[str, Any]]]:
    """Everything in a database, whatever its schema."""
    with engine_of(place) as engine, engine.connect() as connection:
        metadata = MetaData()
        metadata.reflect(engine)
        return {name: rows(connection, table) for name, table in metadata.tables.items()}


def constraints(place: str) -> dict[str, Any]:
    """All that the database enforces, by table; PostgreSQL gives whole definitions, SQLite names and columns."""
    with engine_of(place) as engine, engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            query = (
                "SELECT conrelid::regclass::text || ' ' || conname, pg_get_constraintdef(oid) FROM pg_constraint"
                " WHERE connamespace = 'public'::regnamespace"
                " UNION SELECT tablename || ' ' || indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
                " UNION SELECT table_name || '.' || column_name, data_type || is_nullable"
                " FROM information_schema.columns WHERE table_schema = 'public'"
            )
            found = {name: said for name, said in connection.execute(text(query))}
            return {name: said for name, said in found.items() if not name.startswith("alembic_version")}
        look = inspect(engine)
        found = {}
        for table in sorted(set(look.get_table_names()) - {"alembic_version"}):
            checks = {check["name"]: " ".join(check["sqltext"].split()) for check in look.get_check_constraints(table)}
            # SQLAlchemy can't read the name of a foreign key that stands in its column.
            keys = {(*key["constrained_columns"], key["referred_table"]) for key in look.get_foreign_keys(table)}
            unique = {one["name"]: one["column_names"] for one in look.get_unique_constraints(table)}
            indexes = {one["name"]: (one["column_names"], one["unique"]) for one in look.get_indexes(table)}
            columns = {one["name"]: (str(one["type"]), one["nullable"]) for one in look.get_columns(table)}
            found[table] = [
                checks,
                keys,
                unique,
                indexes,
                columns,
                look.get_pk_constraint(table)["constrained_columns"],
            ]
        return found


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_nothing_is_lost_on_the_way_up(place: str, revision: str) -> None:
    make(place, revision)
    before = dump(place)
    with opened(place) as database, database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        after = {table.name: rows(connection, table) for table in Base.metadata.sorted_tables}

    moved = {"answers": {"rationale", "edited"}, "assignments": set(), "slots": {"leased_until"}}
    for name in before:
        if name in ("alembic_version", "slots"):
            continue
        kept = [{key: row[key] for key in row if key not in moved.get(name, set())} for row in before[name]]
        assert [{key: now[key] for key in old} for old, now in zip(kept, after[name], strict=True)] == kept, name

    texts = {row["answer_id"]: (row["rationale"], row["edited"]) for row in after["answer_texts"]}
    assert texts == TEXTS
    assert {(row["revision"], row["supersedes_id"]) for row in after["answers"]} == {(1, None)}
    assert [(row["id"], row["state"], row["purpose"]) for row in after["assignments"]] == [
        (1, "answered", "item"),
        (2, "open", "item"),
        (3, "answered", "item"),
        (4, "answered", "item"),
        (5, "open", "gold"),
    ]
    slots = {row.pop("id"): row for row in after["slots"]}
    assert set(slots) == {1, 2, 3, 4, 5, 9}  # a gold item has none, but for the one that has an answer
    assert {number for number, row in slots.items() if row["filled"]} == {1, 5}
    assert slots[1]["assignment_id"] == 1 and slots[1]["leased_until"] is None
    assert slots[3]["assignment_id"] == 2 and slots[3]["leased_until"] == 4e9  # the rater goes on where they were
    assert [slots[number]["position"] for number in (1, 3, 4)] == [0.0, -2.5, -2.5]
    assert [slots[number]["project_id"] for number in (1, 9)] == [1, 2]
    tags = {(row["item_id"], row["tag"]) for row in after["item_tags"]}
    assert tags == {(1, "de"), (1, "Ähre"), (1, "🙂"), (1, 'a "b" \\c'), (4, "gold")}
    assert [row["overlap"] for row in after["items"]] == [2, 2, 2, 2, 5]
    assert after["groups"][1]["joined_id"] == (1 if revision == "0002" else None)
    assert after["projects"][0]["skills"] == [] and after["projects"][0]["warnings"] == {}
    assert after["projects"][0]["gold_rate"] == 0.1 and after["members"][0]["skills"] == []


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_what_the_old_database_refused_the_new_one_does(place: str, revision: str) -> None:
    make(place, revision)
    with opened(place) as database:
        for statement in (
            "UPDATE answers SET strength = 3",
            "DELETE FROM answers",
            "UPDATE audit SET at = 0",
            "DELETE FROM audit",
        ):
            with pytest.raises(DatabaseError, match="append-only"), database.write() as session:
                session.execute(text(statement))
        with pytest.raises(IntegrityError), database.write() as session:
            session.execute(text("INSERT INTO item_tags VALUES (999, 'no such item')"))
        with database.write() as session:  # and ids go on
            session.execute(text("INSERT INTO failed_logins (login, at) VALUES ('x', 1)"))
    with opened(place):  # opening it again finds nothing to do
        pass


@pytest.mark.parametrize("revision", [None, "0001", "0002"])
def test_the_same_constraints_as_the_tables_say(new_place: Callable[[], str], revision: str | None) -> None:
    """Checks too, which Alembic's comparison does not see."""
    migrated, made = new_place(), new_place()
    if revision:
        make(migrated, revision)
    with opened(migrated, create=True), engine_of(made) as engine:
        Base.metadata.create_all(engine)
    assert constraints(migrated) == constraints(made)


VIOLATED = {
    "ck_members_role": "UPDATE members SET role = 'king' WHERE id = 1",
    "ck_assignments_purpose": "UPDATE assignments SET purpose = 'fun' WHERE id = 1",
    "ck_assignments_state": "UPDATE assignments SET state = 'lost' WHERE id = 1",
    "ck_slots_filled": "UPDATE slots SET leased_until = 1 WHERE filled",
    "ck_answers_kind": "UPDATE answers SET kind = 'odd' WHERE id = 5",
    "ck_answers_slot": "UPDATE answers SET slot_id = 2 WHERE kind = 'imported'",
    "ck_answers_revision": "UPDATE answers SET revision = 9 WHERE supersedes_id IS NULL AND kind = 'imported'",
    "ck_skips_reason": "UPDATE skips SET reason = 'dull' WHERE id = 1",
    "ck_links_purpose": "UPDATE links SET purpose = 'gift' WHERE purpose = 'join'",
    "ck_links_person": "UPDATE links SET person_id = 1 WHERE purpose = 'join'",
}


def test_every_constraint_is_enforced(place: str, kind: str) -> None:
    """Each one is violated for real, in a database that came up from the first schema and then was filled anew."""
    upgrade(place, "0001")
    tables = Base.metadata.sorted_tables
    checks = {one.name for table in tables for one in table.constraints if isinstance(one, CheckConstraint)}
    assert checks == set(VIOLATED)

    with opened(place) as database:
        with database.write() as session:
            fill(session)
        with database.engine.begin() as connection:  # so that rows of the append-only tables can be tried, too
            for table in ("answers", "audit"):
                if kind == "sqlite":
                    connection.exec_driver_sql(f"DROP TRIGGER {table}_no_update")
                else:
                    connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")

        def refuses(statement: str, said: str) -> None:
            with pytest.raises(IntegrityError) as error, database.write() as session:
                session.execute(text(statement))
            assert said in str(error.value.orig), (statement, error.value.orig)

        for name, statement in VIOLATED.items():
            refuses(statement, name)
        for table in tables:
            for key in table.foreign_key_constraints:
                (first, *_) = key.column_keys
                statement = (
                    f"UPDATE {table.name} SET {first} = 99999 WHERE {first} IS NOT NULL"  # `fill` gives each one
                )
                if table.name == "item_tags":
                    statement += " AND item_id = 1 AND tag = 'de'"  # one row, or else they would collide
                else:
                    (own,) = table.primary_key.columns.keys()
                    some = f"SELECT max({own}) FROM {table.name} WHERE {first} IS NOT NULL"
                    some += " AND id = 3" if table.name == "answers" and first != "slot_id" else ""
                    statement += f" AND {own} = ({some})"
                refuses(statement, "FOREIGN KEY" if kind == "sqlite" else "foreign key")
            for column in table.columns:
                if not column.nullable and not column.primary_key:
                    refuses(f"UPDATE {table.name} SET {column.name} = NULL", column.name)


UNIQUE = {  # what is given a second time, and where
    "uq_projects_name": "UPDATE projects SET name = 'first'",
    "uq_guidelines_project_id_version": "UPDATE guidelines SET version = 1",
    "uq_people_login": "UPDATE people SET login = 'anna'",
    "ix_people_openid": "UPDATE people SET openid = 'x'",
    "uq_members_project_id_rater": "UPDATE members SET rater = 'anna'",
    "uq_members_project_id_pseudonym": "UPDATE members SET pseudonym = 'rater-1'",
    "uq_members_project_id_person_id": "UPDATE members SET person_id = 1",
    "uq_groups_project_id_name": "UPDATE groups SET name = 'part'",
    "uq_items_project_id_key": "UPDATE items SET key = 'q1'",
    "uq_assignments_item_id_member_id": "UPDATE assignments SET item_id = 1, member_id = 1",
    "uq_slots_item_id_number": "UPDATE slots SET number = 1 WHERE item_id = 1",
    "uq_slots_assignment_id": "UPDATE slots SET assignment_id = 1",
    "uq_answers_item_id_member_id_revision": "UPDATE answers SET revision = 2 WHERE id = 3",
    "uq_answers_item_id_member_id_idempotency_key": "UPDATE answers SET idempotency_key = 'two' WHERE id = 3",
    "uq_answers_supersedes_id": "UPDATE answers SET supersedes_id = 1 WHERE id = 3",
    "uq_answers_slot_id": "UPDATE answers SET slot_id = 1, kind = 'rated' WHERE id = 5",
    "uq_skips_item_id_member_id": "UPDATE skips SET item_id = 1",
    "uq_chats_item_id": "UPDATE chats SET item_id = 1",
    "uq_logins_token_hash": "UPDATE logins SET token_hash = 'x'",
    "uq_tokens_token_hash": "UPDATE tokens SET token_hash = 'x'",
    "uq_links_token_hash": "UPDATE links SET token_hash = 'x'",
}


def test_what_is_unique_stays_unique(place: str, kind: str) -> None:
    with opened(place, create=True) as database:
        with database.write() as session:
            fill(session)
        with database.engine.begin() as connection:
            connection.exec_driver_sql(
                "DROP TRIGGER answers_no_update" if kind == "sqlite" else "ALTER TABLE answers DISABLE TRIGGER USER"
            )
            look = inspect(connection)
            names = {one["name"] for table in Base.metadata.tables for one in look.get_unique_constraints(table)}
            names |= {one["name"] for table in Base.metadata.tables for one in look.get_indexes(table) if one["unique"]}
        assert names == set(UNIQUE) | {"uq_answers_id_item_id_member_id"}  # the primary key says the last one already
        for name, statement in UNIQUE.items():
            with pytest.raises(IntegrityError) as error, database.write() as session:
                session.execute(text(statement))
            said = "UNIQUE constraint failed" if kind == "sqlite" else name
            assert said in str(error.value.orig), (name, error.value.orig)


def test_a_migration_that_fails_half_way_leaves_the_old_database(place: str) -> None:
    """The table `webhooks`, which the last step of 0003 makes, is there already: all steps before it are undone."""
    make(place, "0002")
    with engine_of(place) as engine, engine.begin() as connection:
        connection.execute(text("CREATE TABLE webhooks (mine INTEGER)"))
    before = dump(place)
    with pytest.raises(BadInput, match=r"webhooks.* already exists"):
        open_database(place)
    assert json.dumps(dump(place), sort_keys=True) == json.dumps(before, sort_keys=True)
    with engine_of(place) as engine:
        with engine.begin() as connection, pytest.raises(DatabaseError, match="append-only"):
            connection.execute(text("DELETE FROM answers"))
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE webhooks"))
    with opened(place) as database, database.read() as session:
        assert session.execute(text("SELECT count(*) FROM answer_texts")).scalar() == len(TEXTS)


def test_a_newer_database_is_one_sentence(place: str) -> None:
    with opened(place, create=True) as database, database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(BadInput, match=r"written by a newer version of Concord \(schema 9999\); update Concord"):
        open_database(place)
