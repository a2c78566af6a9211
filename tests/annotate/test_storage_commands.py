"""`annotate backup`, `restore` and `move` as commands, and beside a server that runs."""

import pytest

from tests.annotate.conftest import PAIR, Annotate


def test_the_commands(annotate: Annotate) -> None:
    annotate.ok("project", "create", "p")
    annotate.write("items.jsonl", {**PAIR, "answers": [{"rater": "w", "ranks": [1, 2]}]})
    assert "no database" in annotate.refuses("backup", "b.db", "--database", "none.db")
    annotate.ok("import", "p", "items.jsonl")
    assert "1 answers to 1 items" in annotate.ok("backup", "b.db")
    assert "is there already" in annotate.refuses("backup", "b.db")
    made = annotate.json("backup", "b.db", "--overwrite")
    assert made["tables"]["answers"] == 1 and made["bytes"] == (annotate.folder / "b.db").stat().st_size

    annotate.write("more.jsonl", {**PAIR, "id": "more", "answers": [{"rater": "w", "ranks": [1, 2]}]})
    annotate.ok("import", "p", "more.jsonl")
    assert "say --overwrite" in annotate.refuses("restore", "b.db")
    said = annotate.json("restore", "b.db", "--overwrite")
    assert annotate.json("report", "p")["answers"] == 1
    annotate.ok("restore", said["saved"])  # holds more, so nothing is lost
    assert annotate.json("report", "p")["answers"] == 2
    assert "no backup at" in annotate.refuses("restore", "none.db", "--database", "never-made.db")
    assert not (annotate.folder / "never-made.db").exists()
    annotate.ok("restore", "b.db", "--database", "elsewhere/new.db")
    assert annotate.json("report", "p", "--database", "elsewhere/new.db")["answers"] == 1

    assert annotate.json("move", "--to", "sqlite:///moved.db")["tables"]["answers"] == 2
    moved = str(annotate.folder / "moved.db")
    assert f"has moved to {moved}; say --database {moved}" in annotate.refuses("report", "p")
    assert annotate.json("report", "p", "--database", "moved.db")["answers"] == 2
    assert "is not empty" in annotate.refuses("move", "--database", "moved.db", "--to", "elsewhere/new.db")
    assert "where the database is" in annotate.refuses("move", "--database", "moved.db", "--to", "moved.db")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_server_goes_on_after_a_restore_and_refuses_after_a_move(
    annotate: Annotate, kind: str, request: pytest.FixtureRequest
) -> None:
    if kind == "postgresql":
        annotate.environment["ANNOTATE_DATABASE"] = request.getfixturevalue("new_database")()
    annotate.ok("project", "create", "p")
    annotate.person("p", "anna")
    annotate.write("items.jsonl", *({**PAIR, "id": key, "prompt": key} for key in "abc"))
    annotate.ok("import", "p", "items.jsonl")
    with annotate.served() as server:
        anna = server.visitor("anna")
        annotate.ok("backup", "b.db")
        assert anna.submit(anna.next()["task"]["assignment"], [1, 2]).status_code == 200
        assert "holds 1 answers" in annotate.refuses("restore", "b.db")
        annotate.ok("restore", "b.db", "--overwrite")
        assert anna.http.post(f"{anna.project}/next", json={}).status_code == 401  # everybody signs in again

        anna = server.visitor("anna")
        given = anna.next()["task"]["assignment"]
        assert anna.submit(given, [1, 2], key="restored").status_code == 200
        waiting = anna.next()["task"]["assignment"]
        annotate.ok("move", "--to", "moved.db")
        refused = anna.submit(waiting, [2, 1], key="too-late")
        assert refused.status_code == 503 and "nothing was stored" in refused.json()["detail"], refused.text
    assert "has moved to" in annotate.refuses("serve", "--port", "0")

    annotate.environment["ANNOTATE_DATABASE"] = "moved.db"
    with annotate.served() as server:
        anna = server.visitor("anna")
        assert anna.submit(waiting, [2, 1], key="too-late").status_code == 200  # as the page does: the same key again
    assert annotate.json("report", "p")["answers"] == 2
