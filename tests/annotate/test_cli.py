"""The command through its real entry point: what works, and one sentence for each mistake."""

import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from preferences.contract import check_preferences
from tests.annotate.conftest import COMMAND, FOUR, PAIR, PASSWORD, Annotate


@pytest.fixture
def project(annotate: Annotate) -> Annotate:
    annotate.ok("project", "create", "p")
    return annotate


@pytest.fixture(scope="module")
def empty(shared_annotate: Annotate) -> Annotate:
    """A project that several tests share, because none of them may store anything."""
    shared_annotate.ok("project", "create", "p")
    return shared_annotate


def stored(annotate: Annotate) -> tuple[int, int, int]:
    """(items, answers, members) in the database."""
    with sqlite3.connect(annotate.folder / "data/annotate.db") as connection:
        counts = [
            connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("items", "answers", "members")
        ]
    return counts[0], counts[1], counts[2]


def test_every_command_says_in_the_list_what_it_does(annotate: Annotate) -> None:
    for words in ([], ["project"], ["people"], ["token"]):
        said = str(annotate.ok(*words, "--help"))
        assert "Commands:" in said and "..." not in said.split("Commands:")[1], said


def test_help_is_quick(annotate: Annotate) -> None:
    annotate.ok("--help")
    before = time.perf_counter()
    annotate.ok("--help")
    assert time.perf_counter() - before < 0.5


def test_no_torch_and_no_gradio_on_the_way_in() -> None:
    heavy = "{'torch', 'gradio', 'sqlalchemy', 'pydantic', 'numpy'}"
    code = f"import sys, annotate.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_loop_without_a_browser(project: Annotate) -> None:
    answers = [{"rater": "w1", "ranks": [1, 2], "strength": -2}, {"rater": "w2", "ranks": [1, 2], "strength": -1}]
    project.write("items.jsonl", {**PAIR, "answers": answers}, FOUR)
    assert project.json("import", "p", "items.jsonl") == {
        "format": 1, "project": "p", "items": 2, "answers": 2, "raters": 2, "unchanged": 0, "priorities": 0,
        "near": 0, "kept_apart": 0,
    }  # fmt: skip
    again = project.json("import", "p", "items.jsonl")
    assert (again["items"], again["answers"], again["unchanged"]) == (0, 0, 2)
    report = project.json("report", "p")
    assert (report["items"], report["answers"], report["raters"]) == (2, 2, 2)
    assert report["agreement"]["raw"] == 1.0 and isinstance(report["agreement"]["raw"], float)
    assert [(person["rater"], person["answers"]) for person in report["people"]] == [("w1", 1), ("w2", 1)]
    assert "2 by 2 raters" in project.ok("report", "p")
    assert project.json("export", "p", "out")["counts"]["train"] == 1
    (row,) = project.rows("out/train.jsonl")
    assert row["chosen"] == [{"role": "assistant", "content": "It is 4."}]
    assert 0.8 < row["preference"] < 1 and row["strength"] == 1.5


def test_an_environment_variable_names_the_database(annotate: Annotate) -> None:
    annotate.environment["ANNOTATE_DATABASE"] = "elsewhere/my.db"
    annotate.ok("project", "create", "p")
    assert (annotate.folder / "elsewhere/my.db").is_file() and not (annotate.folder / "data").exists()
    annotate.ok("project", "create", "p", "--database", "other.db")
    assert (annotate.folder / "other.db").is_file()


def test_people(project: Annotate) -> None:
    made = project.json("people", "add", "p", "anna")
    assert made["role"] == "rater" and len(made["password"]) >= 12 and made["pseudonym"].startswith("rater-")
    told = project.ok("people", "add", "p", "ben", "--role", "owner", "--password-file", "-", stdin=PASSWORD + "\n")
    assert "owner" in told and PASSWORD not in told
    assert "anna is in project 'p' already" in project.refuses("people", "add", "p", "anna")
    project.ok("project", "create", "q")
    assert project.json("people", "add", "q", "anna")["password"] is None  # she keeps her password
    sentence = project.refuses("people", "add", "q", "ben", "--password-file", "-", stdin=PASSWORD)
    assert "has a password from another project" in sentence
    assert "too short" in project.refuses("people", "add", "p", "cem", "--password-file", "-", stdin="short")
    assert "without spaces" in project.refuses("people", "add", "p", "c m")
    assert "cannot read nowhere.txt" in project.refuses("people", "add", "p", "cem", "--password-file", "nowhere.txt")
    assert "no project 'r' in this database; there are p, q" in project.refuses("people", "add", "r", "cem")
    assert stored(project)[2] == 3


def test_an_imported_rater_can_get_a_login(project: Annotate) -> None:
    project.write("items.jsonl", {**PAIR, "answers": [{"rater": "w1", "ranks": [1, 2]}]})
    project.ok("import", "p", "items.jsonl")
    project.person("p", "w1")
    (person,) = project.json("report", "p")["people"]
    assert (person["rater"], person["answers"], person["login"]) == ("w1", 1, True)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"responses": ["only one"]}, "responses: 1 given, and at least two are needed"),
        ({"responses": []}, "responses: 0 given"),
        ({"prompt": ""}, "prompt: is empty"),
        ({"prompt": "  \n"}, "prompt: is empty"),
        ({"prompt": []}, "prompt: is empty"),
        (
            {"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            "ends with an assistant",
        ),
        ({"prompt": [{"role": "boss", "content": "a"}]}, "prompt[0].role"),
        ({"answers": [{"rater": "w", "ranks": [1]}]}, "answers[0] (rater w): ranks: 1 ranks for 2 responses"),
        ({"answers": [{"rater": "w", "ranks": [2, 3]}]}, "the best response must have rank 1"),
        ({"answers": [{"rater": "w", "ranks": [0, 1]}]}, "answers[0].ranks[0]"),
        ({"answers": [{"rater": "w", "ranks": [1, 10**30]}]}, "answers[0].ranks[1]"),
        ({"answers": [{"rater": "w", "ranks": ["1", 2]}]}, "answers[0].ranks[0]"),
        ({"answers": [{"rater": "w", "ranks": [1, 2], "strength": 2}]}, "strength 2 does not fit"),
        ({"answers": [{"rater": "w", "ranks": [1, 2]}] * 2}, "rater w answers twice"),
        ({"answers": [{"rater": "", "ranks": [1, 2]}]}, "answers[0].rater"),
        ({"answers": [{"rater": "w", "ranks": [1, 2], "shown": [0, 0]}]}, "shown: [0, 0] is not an order"),
        ({"answers": [{"rater": "w", "ranks": [1, 2], "submitted_at": "yesterday"}]}, "is not an ISO 8601 time"),
        ({"gold": [1]}, "gold: 1 ranks for 2 responses"),
        ({"tags": "de"}, "tags"),
        ({"priority": "high"}, "priority"),
        ({"colour": "red"}, "colour: unknown key"),
        ({"id": None}, "id"),
        ({"responses": ["a", {"text": "b", "messages": []}]}, "both `text` and `messages`"),
        ({"prompt": "lone \ud800 surrogate"}, "half a character"),
    ],
)
def test_a_bad_line_stores_nothing_and_is_named(empty: Annotate, change: dict[str, Any], sentence: str) -> None:
    good = {**PAIR, "answers": [{"rater": "w9", "ranks": [1, 2]}]}
    empty.write("items.jsonl", good, {**FOUR, **({"responses": ["a", "b"]} | change)})
    said = empty.refuses("import", "p", "items.jsonl")
    assert "items.jsonl, line 2: " in said and sentence in said, said
    assert stored(empty) == (0, 0, 0)


def test_files_that_are_no_json_lines(empty: Annotate) -> None:
    project, folder = empty, empty.folder
    assert "cannot read missing.jsonl: No such file" in project.refuses("import", "p", "missing.jsonl")
    (folder / "dir").mkdir()
    assert "dir" in project.refuses("import", "p", "dir")
    (folder / "empty.jsonl").write_text("\n")
    assert "no items in it" in project.refuses("import", "p", "empty.jsonl")
    (folder / "bad.jsonl").write_text(json.dumps(PAIR) + '\n{"id": "x", \n')
    assert "bad.jsonl, line 2: not JSON" in project.refuses("import", "p", "bad.jsonl")
    (folder / "list.jsonl").write_text("[1]\n")
    assert "line 1: a list, not a JSON object" in project.refuses("import", "p", "list.jsonl")
    (folder / "digits.jsonl").write_text('{"id": %s}' % ("9" * 5000))
    assert "line 1: not JSON" in project.refuses("import", "p", "digits.jsonl")
    (folder / "latin.jsonl").write_bytes(json.dumps(PAIR).encode() + b'\n{"id": "\xe4"}\n')
    assert "line 2: not UTF-8" in project.refuses("import", "p", "latin.jsonl")
    assert stored(project) == (0, 0, 0)


def test_a_known_id_with_other_content(project: Annotate) -> None:
    project.write("items.jsonl", PAIR)
    project.ok("import", "p", "items.jsonl")
    project.write("more.jsonl", FOUR, {**PAIR, "prompt": "Something else?"})
    said = project.refuses("import", "p", "more.jsonl")
    assert "more.jsonl, line 2: id 'pair' is in project 'p' already with other content" in said
    project.write("twice.jsonl", FOUR, {**FOUR, "prompt": "Something else?"})
    assert "twice.jsonl, line 2: id 'four' stands in line 1" in project.refuses("import", "p", "twice.jsonl")
    words = f"{COMMAND} import p <(cat more.jsonl)"  # what can't be read twice, to say which line it is
    done = subprocess.run(["bash", "-c", words], cwd=project.folder, capture_output=True, text=True)
    assert done.returncode == 2 and "id 'pair' is in project 'p' already" in done.stderr, done.stderr
    assert stored(project)[0] == 1
    project.write("same.jsonl", PAIR, FOUR, FOUR)
    assert project.json("import", "p", "same.jsonl")["items"] == 1


def test_projects_that_make_no_sense(annotate: Annotate) -> None:
    assert "no database at" in annotate.refuses("report", "p")
    assert not (annotate.folder / "data").exists()
    assert "--guidelines: cannot read no.md" in annotate.refuses("project", "create", "p", "--guidelines", "no.md")
    assert not (annotate.folder / "data").exists()
    annotate.ok("project", "create", "p")
    assert "is there already" in annotate.refuses("project", "create", "p")
    assert "--overlap 0" in annotate.refuses("project", "create", "q", "--overlap", "0")
    assert "--overlap 1001" in annotate.refuses("project", "create", "q", "--overlap", "1001")
    assert "--test 1.5" in annotate.refuses("project", "create", "q", "--test", "1.5")
    said = annotate.refuses("project", "create", "q", "--test", "0.6", "--validation", "0.5")
    assert "leave nothing to train on" in said
    assert "1 to 100 printable" in annotate.refuses("project", "create", " ")
    assert "no project 'q' in this database; there are p" in annotate.refuses("report", "q")
    assert "in memory" in annotate.refuses("project", "create", "q", "--database", "sqlite://")
    assert "not a database URL" in annotate.refuses("report", "p", "--database", "postgresql+psycopg://host:port/x")


def test_usage_errors_exit_with_2(annotate: Annotate) -> None:
    for words in (
        ["import"],
        ["nonsense"],
        ["report", "p", "--nonsense"],
        ["project", "create", "p", "--overlap", "x"],
    ):
        done = annotate(*words)
        assert done.returncode == 2 and "Usage" in done.stderr


def test_export_refuses_what_it_must_not_replace(project: Annotate) -> None:
    assert "has no answers yet" in project.refuses("export", "p", "out")
    assert not (project.folder / "out").exists()
    project.write("items.jsonl", {**PAIR, "answers": [{"rater": "w", "ranks": [1, 2]}]})
    project.ok("import", "p", "items.jsonl")
    (project.folder / "mine").mkdir()
    (project.folder / "mine/thesis.txt").write_text("years of work")
    assert "is not empty" in project.refuses("export", "p", "mine")
    assert "is not a preferences folder" in project.refuses("export", "p", "mine", "--overwrite")
    assert (project.folder / "mine/thesis.txt").read_text() == "years of work"
    assert "is a file" in project.refuses("export", "p", "items.jsonl")
    assert "cannot write to" in project.refuses("export", "p", "items.jsonl/out")
    (project.folder / "here").mkdir()
    done = subprocess.run(
        [COMMAND, "export", "p", ".", "--database", "../data/annotate.db"],
        cwd=project.folder / "here",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "cannot write to ." in done.stderr, done.stderr
    assert not list((project.folder / "here").iterdir())
    project.ok("export", "p", "out")
    assert "say --overwrite" in project.refuses("export", "p", "out")
    project.ok("export", "p", "out", "--overwrite")
    check_preferences(project.folder / "out")
    assert not list(project.folder.glob(".out*"))


def test_no_space_left_is_one_sentence(project: Annotate) -> None:
    """A file size limit stands in for a full disk: SQLite reports both alike."""
    rows = [{"id": str(n), "prompt": "long " * 200, "responses": ["a " * 500, "b " * 500]} for n in range(2000)]
    project.write("items.jsonl", *rows)
    words = f"ulimit -f 400; exec {COMMAND} import p items.jsonl"
    done = subprocess.run(["bash", "-c", words], cwd=project.folder, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "failed" in done.stderr and "nothing of this was stored" in done.stderr
    assert stored(project) == (0, 0, 0)
    project.ok("import", "p", "items.jsonl")


def test_serve_says_when_the_port_is_taken(project: Annotate) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = project.refuses("serve", "--port", port)
    assert f"cannot listen on 127.0.0.1 port {port} (Address already in use)" in said
    assert "cannot listen" in project.refuses("serve", "--port", "99999999")


def test_a_report_keeps_to_its_lines(project: Annotate) -> None:
    """Whatever imported ids hold: they go to a terminal."""
    project.write("items.jsonl", {**PAIR, "answers": [{"rater": "\x1b[31mred\nrow " + "x" * 99, "ranks": [1, 2]}]})
    project.ok("import", "p", "items.jsonl")
    told = project.ok("report", "p")
    assert "\x1b" not in told and "red row" in told.replace("\N{REPLACEMENT CHARACTER}", " ")
    assert max(map(len, told.splitlines())) < 100


def test_simulated_is_said_everywhere(annotate: Annotate, tmp_path: Path) -> None:
    annotate.ok("project", "create", "p", "--simulated")
    annotate.write("items.jsonl", {**PAIR, "answers": [{"rater": "w", "ranks": [1, 2]}]})
    annotate.ok("import", "p", "items.jsonl")
    assert annotate.json("report", "p")["simulated"] is True
    assert "SIMULATED" in annotate.ok("report", "p")
    annotate.ok("export", "p", "out")
    assert check_preferences(tmp_path / "out")["simulated"] is True
    assert "imported answers come from programs" in (tmp_path / "out/README.md").read_text()


def test_a_closed_project_takes_no_items(project: Annotate) -> None:
    project.ok("project", "set", "p", "--closed")
    project.write("late.jsonl", FOUR)
    assert "is closed; open it again" in project.refuses("import", "p", "late.jsonl")
    project.ok("project", "set", "p", "--open")
    assert project.json("import", "p", "late.jsonl")["items"] == 1
