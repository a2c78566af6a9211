"""What the audit log says of signing in and out, projects and exports; an export asks about each of its projects."""

from pathlib import Path
from typing import Any

import pytest

from annotate.api import items as items_api
from annotate.services.people import add_person
from annotate.services.projects import ProjectSettings, create_project
from annotate.services.rights import Right
from annotate.services.tokens import make_token
from annotate.store.tables import Audit, Member, Person
from tests.annotate.conftest import PASSWORD
from tests.annotate.house import House, item


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path, item("q", [1, 2]))


def entries(house: House, login: str, after: int = 0) -> list[tuple[str, int | None]]:
    """Actions of the account of this person, and the project that each is about."""
    with house.database.read() as session:
        person = session.query(Person.id).filter_by(login=login).scalar()
        found = session.query(Audit).filter(Audit.person_id == person, Audit.id > after).order_by(Audit.id)
        return [(entry.action, entry.project_id) for entry in found]


def test_signing_in_and_out(house: House) -> None:
    before = entries(house, "anna")
    wrong = house.client.post("/login", data={"login": "anna", "password": "a wrong one"})
    assert wrong.status_code == 401 and entries(house, "anna") == before
    signed_in = house.client.post("/login", data={"login": "anna", "password": PASSWORD}, follow_redirects=False)
    assert signed_in.status_code == 303
    assert entries(house, "anna")[len(before) :] == [("signed in", None)]
    for _ in range(2):  # the second time there is nothing to end
        house.client.post("/logout", follow_redirects=False)
        assert entries(house, "anna")[len(before) :] == [("signed in", None), ("signed out", None)]


def test_who_made_a_project(house: House) -> None:
    made = house.client.post("/api/v1/projects", json={"name": "new"}, headers=house.headers["olga"])
    assert made.status_code == 201
    assert ("project created", made.json()["id"]) in entries(house, "olga")


def second_project(house: House) -> int:
    """Olga owns it, too."""
    with house.database.write() as session:
        project = create_project(session, "second", guidelines=None, settings=ProjectSettings())
        add_person(session, project, "olga", role="owner", name=None, password=None)
        return project.id


def test_an_export_of_several_projects_asks_for_each_of_them_both_times(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a right is lost between settling the splits and making the rows."""
    second = second_project(house)
    house.client.post(
        f"/api/v1/projects/{second}/items",
        content='{"id": 1, "prompt": "?", "responses": ["a", "b"], "answers": [{"rater": "w", "ranks": [1, 2]}]}',
        headers=house.headers["olga"],
    )
    body = {"projects": [house.project, second]}

    def export() -> int:
        return house.client.post("/api/v1/exports", json=body, headers=house.headers["olga"]).status_code

    assert export() == 200
    settle = items_api.settle_splits

    def settle_and_lose(session: Any, *projects: Any, **rest: Any) -> None:
        settle(session, *projects, **rest)
        session.query(Member).filter_by(project_id=second, role="owner").one().role = "reviewer"

    monkeypatch.setattr(items_api, "settle_splits", settle_and_lose)
    assert export() == 403


@pytest.mark.parametrize(
    ("rights", "status"),
    [([Right.RATE], 403), ([Right.REVIEW], 200), ([Right.EXPORT], 200), ([Right.RATE, Right.PEOPLE], 200)],
)
def test_a_token_that_can_do_more_than_rate_may_list_projects(house: House, rights: list[Right], status: int) -> None:
    with house.database.write() as session:
        person = session.query(Person.id).filter_by(login="olga").scalar()
        _, token = make_token(session, person, "t", rights, None)
    answer = house.client.get("/api/v1/projects", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == status
