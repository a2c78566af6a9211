"""A small project in this process, without a server of its own, and people who speak its API."""

from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from annotate.app import build_app
from annotate.services.exchange import import_items
from annotate.services.people import add_person, start_login, visitor
from annotate.services.projects import ProjectSettings, create_project
from annotate.store.database import Database, open_database
from annotate.store.tables import Member, Person
from preferences.contract import Item
from tests.annotate.conftest import PASSWORD

PEOPLE = {"rita": "reviewer", "rob": "reviewer", "olga": "owner", "anna": "rater", "ben": "rater"}


class House:
    """Project p with `items`, everybody of PEOPLE, and a client that asks as one of them."""

    def __init__(self, where: Path | str, *items: dict[str, Any], **settings: Any) -> None:
        """`where` is a folder for its database, or the URL of an empty one."""
        self.database: Database = open_database(
            where if isinstance(where, str) else str(where / "house.db"), create=True
        )
        self.headers: dict[str, dict[str, str]] = {}
        self.pseudonyms: dict[str, str] = {}
        with self.database.write() as session:
            # No chance decides what anybody is given: a gold item comes where a test asks for a rate.
            chosen = ProjectSettings(**{"practice": 0, "gold_rate": 0.0, **settings})
            project = create_project(session, "p", guidelines=None, settings=chosen)
            for login, role in PEOPLE.items():
                self._add(session, project, login, role)
            if items:
                import_items(session, project, [Item.model_validate(row) for row in items], "items")
            self.project = project.id
            session.flush()
            for member in session.query(Member):
                self.pseudonyms[member.rater] = member.pseudonym
        self.client = TestClient(build_app(self.database, pages=False))
        self.address = f"/api/v1/projects/{self.project}"

    def _add(self, session: Any, project: Any, login: str, role: str) -> None:
        member = add_person(session, project, login, role=role, name=login.title(), password=PASSWORD)
        token = start_login(session, session.get_one(Person, member.person_id))
        session.flush()
        found = visitor(session, token)
        assert found is not None
        self.headers[login] = {"Cookie": f"concord_session={token}", "X-CSRF-Token": found.csrf_token}

    def ask(self, login: str, method: str, path: str, body: Any = None, status: int = 200, **rest: Any) -> Any:
        """What the API answers this person, under the project's address; anything but `status` fails."""
        answer = self.client.request(method, self.address + path, json=body, headers=self.headers[login], **rest)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def rate(self, login: str, count: int, seconds: float = 10.0) -> None:
        """Answer items as they come, the first shown being the best."""
        for _ in range(count):
            task = self.ask(login, "POST", "/next", {})["task"]
            ranks = list(range(1, len(task["responses"]) + 1))
            body = {"assignment": task["assignment"], "key": f"key {task['assignment']:06}", "ranks": ranks}
            self.ask(login, "POST", "/answers", {**body, "seconds": seconds})


def item(key: str, *answers: list[int], responses: int = 2, **rest: Any) -> dict[str, Any]:
    """An import line with so many responses and these rankings by w0, w1, …"""
    given = [{"rater": f"w{number}", "ranks": ranks} for number, ranks in enumerate(answers)]
    texts = [f"{key} response {number}" for number in range(responses)]
    return {"id": key, "prompt": f"What is {key}?", "responses": texts, "answers": given, **rest}
