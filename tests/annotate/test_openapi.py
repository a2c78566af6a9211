"""The OpenAPI document against the real application: generated requests, and what the document says of the answers.

Requests go to the application in this process, each route on a database of its own in which everything is there once.
What is asked is that no request is a mistake of the server's, and that every answer is as the document says.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from annotate.app import build_app
from annotate.store.database import open_database
from tests.annotate.test_routes import ROLES, ROWS, Scene, scene, unhurried  # noqa: F401

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
API_ROWS = [row for row in ROWS if " /api/v1/" in row and "openapi" not in row]
EXAMPLES = 20


# Of a body that must be more than the document says, a part that fits.
FITS: dict[str, Any] = {"projects": [1], "ranks": [1, 2], "strength": None, "url": "https://a.example/", "version": 1}


@schemathesis.serializer("application/x-ndjson")
def lines(_context: Any, value: Any) -> dict[str, bytes]:
    """An import as generated: seldom one that is right, which test_exchange.py has."""
    return {"data": value if isinstance(value, bytes) else (json.dumps(value) + "\n").encode()}


@pytest.mark.parametrize("route", API_ROWS)
def test_every_answer_is_as_documented(route: str, scene: Scene, tmp_path: Path) -> None:  # noqa: F811
    method, path = route.split(" ")
    shutil.copy(scene.path, tmp_path / "a.db")
    database = open_database(str(tmp_path / "a.db"))
    statuses = ROWS[route][0]
    role = next(role for role in ("owner", "rater") if statuses[ROLES.index(role)] < 300)
    # Asked for one by one: Schemathesis' own plugin does not know the newest pytest.
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", build_app(database, pages=False))
    seen = set()

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=HealthCheck)
    @given(case=schema[path][method].as_strategy(), known=st.booleans())
    def ask(case: Any, known: bool) -> None:
        """With made-up numbers, or with those of what is there."""
        wanted = scene.numbers if known else {"project_id": scene.numbers["project_id"]}
        case.path_parameters |= {name: wanted[name] for name in case.path_parameters.keys() & wanted.keys()}
        if known and isinstance(case.body, dict):
            fits = FITS | {"assignment": int(wanted["assignment_id"])}
            case.body |= {key: value for key, value in fits.items() if key in case.body}
        match = {"If-Match": '"1"'} if known and method == "PATCH" else {}
        case.headers = {name: value for name, value in case.headers.items() if name.lower() == "if-match"} | match
        case.headers |= scene.headers[role]
        case.cookies = {}
        seen.add(case.call_and_validate(checks=CHECKS).status_code)

    ask()
    database.engine.dispose()
    assert seen - {401, 403, 404}, f"nothing but {seen}: the route itself was never reached"


def test_every_route_is_in_the_docs() -> None:
    """docs/api.md has a table of routes: `…` in front stands for anything, and so does `…` at the end."""
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    told: list[tuple[set[str], str]] = []
    for row in re.findall(r"^\| (`.*?) \|", text, re.M):
        for methods, path in re.findall(r"`([A-Z, ]*)([/…][^`]*)`", row):
            pattern = re.escape(re.sub(r"{\w+}", "{}", path)).replace("…", ".*")
            told.append((set(re.findall("[A-Z]+", methods)), pattern))
    missing = []
    for row in API_ROWS:
        method, path = row.split()[0], re.sub(r"{\w+}", "{}", row.split()[1].removeprefix("/api/v1").partition("?")[0])
        if not any((not methods or method in methods) and re.fullmatch(pattern, path) for methods, pattern in told):
            missing.append(row)
    assert missing == []
