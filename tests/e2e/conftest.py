"""A real headless Chromium, or a skip that says why; one server for all of these tests, and projects of their own."""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from annotate.services.exchange import import_items
from annotate.services.people import add_person
from annotate.services.projects import ProjectSettings, create_project
from annotate.store.database import open_database
from preferences.contract import Item
from tests.annotate.conftest import PASSWORD, Annotate, Server


@pytest.fixture
def page(browser) -> Iterator:
    """A fresh browser profile's page; any error or dialog that a script of the page raises fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(15000)
    opened = context.new_page()
    trouble: list[str] = []
    opened.on("pageerror", lambda error: trouble.append(str(error)))
    opened.on("dialog", lambda dialog: (trouble.append(f"dialog {dialog.message}"), dialog.dismiss()))
    yield opened
    context.close()
    assert trouble == []


@pytest.fixture
def phone(browser: Any) -> Iterator[Any]:
    """A page on a screen of 360 px that is touched."""
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    context.set_default_timeout(15000)
    page = context.new_page()
    trouble: list[str] = []
    page.on("pageerror", lambda error: trouble.append(str(error)))
    yield page
    context.close()
    assert trouble == []


@pytest.fixture(scope="session")
def shared_annotate(tmp_path_factory: pytest.TempPathFactory) -> Annotate:
    """The folder and the database of the one server."""
    annotate = Annotate(tmp_path_factory.mktemp("e2e"))
    open_database(str(annotate.folder / "data/annotate.db"), create=True)
    return annotate


@pytest.fixture(scope="session")
def server(shared_annotate: Annotate) -> Iterator[Server]:
    with shared_annotate.served() as running:
        yield running


class House:
    """Makes projects straight in the database of a server, and looks at what was stored there."""

    def __init__(self, annotate: Annotate) -> None:
        self.file = annotate.folder / "data/annotate.db"
        self.database = open_database(str(self.file), create=True)

    def project(self, name: str, *items: dict[str, Any], guidelines: str | None = None, **settings: Any) -> str:
        """A project with one rater, who has its name as a login. Returns the name."""
        records = [Item.model_validate({"id": f"i{number}", **item}) for number, item in enumerate(items)]
        with self.database.write() as session:
            project = create_project(session, name, guidelines=guidelines, settings=ProjectSettings(**settings))
            add_person(session, project, name, role="rater", name=None, password=PASSWORD)
            import_items(session, project, records, "items.jsonl")
        return name

    def run(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.file, timeout=30) as connection:
            return connection.execute(statement, values).fetchall()

    def answers(self, login: str) -> list[dict[str, Any]]:
        """What a rater has given, the oldest first, in the order of the import."""
        columns = ("item", "revision", "ranks", "strength", "flags")
        rows = self.run(
            "SELECT items.key, revision, ranks, strength, flags FROM answers JOIN items ON items.id = item_id"
            " JOIN members ON members.id = member_id WHERE rater = ? ORDER BY answers.id",
            login,
        )
        answers = [dict(zip(columns, row, strict=True)) for row in rows]
        return [{**row, "ranks": json.loads(row["ranks"]), "flags": json.loads(row["flags"])} for row in answers]


@pytest.fixture(scope="session")
def house(shared_annotate: Annotate) -> House:
    return House(shared_annotate)


@pytest.fixture
def pairs(house: House, request: pytest.FixtureRequest) -> str:
    """The login of a rater with a project of three pairs of their own, without gold items; their prompts say which."""
    return house.project(request.node.name[:64], *three_pairs())


def three_pairs() -> list[dict[str, Any]]:
    return [{"prompt": f"{word}?", "responses": ["one", "two"]} for word in ("First", "Second", "Third")]


@pytest.fixture
def sign_in() -> Callable:
    def sign_in(page, url: str, login: str, password: str = PASSWORD) -> None:
        page.goto(url)
        page.get_by_label("Login").fill(login)
        page.get_by_label("Password").fill(password)
        page.keyboard.press("Enter")

    return sign_in


@pytest.fixture
def begin(sign_in: Callable) -> Callable:
    """Sign in and wait for the first item."""

    def begin(page, url: str, login: str) -> None:
        sign_in(page, url, login)
        page.locator("#concord[data-view=work]").wait_for()

    return begin


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tests leave pictures to look at: $SCREENSHOTS, or a temporary folder."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
