"""Databases as the releases before this one left them, with data in them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, MetaData, create_engine, text

from annotate.store import database as store
from tests.annotate.filled import HASH, UNICODE

TEXTS = {
    2: ("because\n" + UNICODE, None),
    3: (None, {"response": 1, "text": UNICODE}),
    4: ("", {"response": 0, "text": "x"}),
}


@contextmanager
def engine_of(place: str) -> Iterator[Engine]:
    engine = create_engine(place if "://" in place else f"sqlite:///{place}")
    yield engine
    engine.dispose()


def upgrade(place: str, revision: str) -> None:
    """Bring a database to a schema, without data."""
    config = Config()
    config.set_main_option("script_location", str(Path(store.__file__).parent / "migrations"))
    with engine_of(place) as engine, engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def make(place: str, revision: str) -> None:
    """A database as the release with this schema left it: two raters, gold, leases, imported answers, surplus."""
    upgrade(place, revision)
    with engine_of(place) as engine:
        metadata = MetaData()
        metadata.reflect(engine)
        with engine.begin() as connection:
            for name, rows in old_rows(revision).items():
                for row in rows:  # each with its own keys, so that what is not said is null
                    connection.execute(metadata.tables[name].insert().values(**row))
            if engine.dialect.name == "postgresql":
                for name in old_rows(revision):
                    connection.execute(
                        text(f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), (SELECT max(id) FROM {name}))")
                    )


def old_rows(revision: str) -> dict[str, list[dict[str, Any]]]:
    def item(number: int, **rest: Any) -> dict[str, Any]:
        row = {"id": number, "project_id": 1, "group_id": 1, "key": f"q{number}", "priority": 0.0, "tags": []}
        prompt = [{"role": "user", "content": f"{UNICODE} {number}"}]
        return {**row, "prompt": prompt, "responses": [1, 2], "content_hash": HASH, "prompt_hash": HASH, **rest}

    def answer(number: int, item: int, member: int, **rest: Any) -> dict[str, Any]:
        row: dict[str, Any] = {"id": number, "item_id": item, "member_id": member, "ranks": [1, 2], "flags": ["ä"]}
        row |= {
            "kind": "rated",
            "idempotency_key": f"key {number}",
            "strength": -2,
            "submitted_at": 5.5,
            "seconds": 0.1,
        }
        rationale, edited = TEXTS.get(number, (None, None))
        row |= {"rationale": rationale} if rationale is not None else {}
        return {**row, **({"edited": edited} if edited else {}), **rest}

    def slot(number: int, item: int, **rest: Any) -> dict[str, Any]:
        return {"id": number, "item_id": item, "number": 1 + number % 2, **rest}

    shares = {"overlap": 2, "strength": True, "validation": 0.1, "test": 0.2, "simulated": False, "created_at": 1.25}
    assignment = {"shown": [1, 0], "created_at": 3.0}
    joined = {"joined_id": 1} if revision >= "0002" else {}
    return {
        "projects": [{"id": 1, "name": UNICODE, **shares}, {"id": 2, "name": "other", **shares, "overlap": 5}],
        "guidelines": [{"id": 1, "project_id": 1, "version": 1, "text": UNICODE}],
        "people": [
            {"id": number, "login": login, "name": None, "password_hash": "$argon2", "created_at": 2.0}
            for number, login in ((1, "anna"), (2, "ben"), (3, "olga"))
        ],
        "members": [
            {
                "id": 1,
                "project_id": 1,
                "person_id": 1,
                "rater": "anna",
                "role": "rater",
                "pseudonym": "a",
                "guideline": 1,
            },
            {"id": 2, "project_id": 1, "person_id": 2, "rater": "ben", "role": "rater", "pseudonym": "b"},
            {"id": 3, "project_id": 1, "person_id": 3, "rater": "olga", "role": "owner", "pseudonym": "o"},
            {"id": 4, "project_id": 1, "rater": UNICODE, "role": "rater", "pseudonym": "w"},
        ],
        "groups": [
            {"id": 1, "project_id": 1, "name": "one", "split": "test"},
            {"id": 2, "project_id": 1, "name": UNICODE, **joined},
        ],
        "items": [
            item(1, tags=["de", "Ähre", "🙂", "de", 'a "b" \\c']),
            item(2, priority=2.5),
            item(3, gold=[1, 2]),  # handed out as any other then
            item(4, gold=[2, 1], tags=["gold"]),
            item(5, project_id=2),
        ],
        "assignments": [
            {"id": 1, "item_id": 1, "member_id": 1, **assignment},  # answered
            {"id": 2, "item_id": 2, "member_id": 1, **assignment},  # its lease runs
            {"id": 3, "item_id": 1, "member_id": 2, **assignment},  # answered late: surplus
            {"id": 4, "item_id": 3, "member_id": 2, **assignment},  # a gold item, answered
            {"id": 5, "item_id": 4, "member_id": 2, **assignment},  # a gold item, its lease runs
        ],
        "slots": [
            slot(1, 1, assignment_id=1),
            slot(2, 1),
            slot(3, 2, assignment_id=2, leased_until=4e9),
            slot(4, 2),
            slot(5, 3, assignment_id=4),
            slot(6, 3),
            slot(7, 4, assignment_id=5, leased_until=4e9),
            slot(8, 4),
            slot(9, 5),
        ],
        "answers": [
            answer(1, 1, 1, slot_id=1, shown=[1, 0], guideline=1),
            answer(2, 1, 2, kind="surplus"),
            answer(3, 3, 2, slot_id=5, ratings={"ä": [1.5, 2]}),
            answer(4, 1, 4, kind="imported", idempotency_key=None),
            answer(5, 2, 4, kind="imported", idempotency_key=None, seconds=None, strength=None),
        ],
        "audit": [
            {"id": 1, "project_id": 1, "member_id": 1, "at": 5.5, "action": "answered", "detail": {"answer": 1}},
            {"id": 2, "at": 6.5, "action": "by hand", "detail": {"text": UNICODE}},
        ],
        "logins": [{"id": 1, "person_id": 1, "token_hash": HASH, "csrf_token": "c", "expires_at": 4e9}],
        "failed_logins": [{"id": 1, "login": UNICODE, "at": 1.0}],
    }
