"""Other tools' files through the command and over the API."""

import gzip
import json
from pathlib import Path

import pytest

from preferences.formats import FORMATS
from tests.annotate.conftest import Annotate
from tests.annotate.house import House

VOTE = {
    "question_id": "q1",
    "model_a": "x",
    "model_b": "y",
    "winner": "model_b",
    "judge": "secret-ann",
    "conversation_a": [{"role": "user", "content": "Sky?"}, {"role": "assistant", "content": "Green."}],
    "conversation_b": [{"role": "user", "content": "Sky?"}, {"role": "assistant", "content": "Blue."}],
    "turn": 1,
    "tstamp": 1687850000.5,
    "openai_moderation": {},
}
TIE = {**VOTE, "question_id": "q2", "winner": "tie", "judge": "secret-bob", "model_b": "z"}


@pytest.fixture
def project(annotate: Annotate) -> Annotate:
    annotate.ok("project", "create", "p")
    return annotate


def test_votes_come_in_and_pairs_go_out(project: Annotate) -> None:
    project.write("votes.jsonl", VOTE, {**VOTE, "judge": "secret-bob"}, TIE)
    said = project.ok("import", "p", "votes.jsonl", "--format", "fastchat")
    assert said.splitlines() == [
        "stored 2 items and 3 answers (2 new raters) in p",
        "  `openai_moderation`: 3 rows say it, and an import line has no place for it",
    ]
    again = project.json("import", "p", "votes.jsonl", "--format", "fastchat")
    assert (again["items"], again["unchanged"]) == (0, 2)
    assert again["lost"] == ["`openai_moderation`: 3 rows say it, and an import line has no place for it"]

    out = project.json("export", "p", "hh", "--format", "hh-rlhf")
    assert out["format_name"] == "hh-rlhf" and out["counts"]["rankings"] == 2
    assert "ties: 1 pairs have no winner, and are left out" in out["lost"]
    [file] = (project.folder / "hh").iterdir()
    assert project.rows(f"hh/{file.name}") == [
        {"chosen": "\n\nHuman: Sky?\n\nAssistant: Blue.", "rejected": "\n\nHuman: Sky?\n\nAssistant: Green."}
    ]


def test_what_is_held_back_is_said_in_every_format(project: Annotate) -> None:
    project.write("votes.jsonl", VOTE, {**VOTE, "judge": "bob", "winner": "model_a"}, TIE)
    project.ok("import", "p", "votes.jsonl", "--format", "fastchat")
    project.ok("project", "set", "p", "--hold-back", "0.5")
    assert "held back, because raters differ and nobody has decided: 1 rankings" in project.ok(
        "export", "p", "votes", "--format", "fastchat"
    )
    assert project.json("export", "p", "again", "--format", "fastchat")["held_back"] == 1


def test_raters_leave_under_pseudonyms(project: Annotate) -> None:
    project.write("votes.jsonl", VOTE, {**VOTE, "judge": "secret-bob"}, TIE)
    project.ok("import", "p", "votes.jsonl", "--format", "fastchat")
    for name in ("fastchat", "label-studio"):
        project.ok("export", "p", name, "--format", name)
        said = "".join(file.read_text() for file in (project.folder / name).iterdir())
        assert "secret" not in said and "rater-" in said


def test_mistakes_are_one_sentence_and_store_nothing(project: Annotate) -> None:
    (project.folder / "bad.jsonl").write_text(json.dumps(VOTE) + "\n" + json.dumps({**VOTE, "winner": "nobody"}) + "\n")
    assert "bad.jsonl, line 2: winner: Input should be 'model_a'" in project.refuses(
        "import", "p", "bad.jsonl", "--format", "fastchat"
    )
    assert "no format 'llama'; the nearest known one is 'llama-factory'" in project.refuses(
        "import", "p", "bad.jsonl", "--format", "llama"
    )
    assert "no answers yet" in project.refuses("export", "p", "out", "--format", "trl")
    project.write("votes.jsonl", VOTE)
    project.ok("import", "p", "votes.jsonl", "--format", "fastchat")
    assert project.json("report", "p")["items"] == 1
    project.write("changed.jsonl", {**VOTE, "model_a": "other"})
    assert "changed.jsonl: id 'q1' is in project 'p' already with other content" in project.refuses(
        "import", "p", "changed.jsonl", "--format", "fastchat"
    )
    assert (
        "out.jsonl is there already"
        in (
            project.ok("export", "p", "out.jsonl", "--format", "trl"),
            project.refuses("export", "p", "out.jsonl", "--format", "trl"),
        )[1]
    )
    project.ok("export", "p", "out.jsonl", "--format", "trl", "--overwrite")
    assert "out.jsonl is one file, and this is several" in project.refuses(
        "export", "p", "out.jsonl", "--format", "llama-factory", "--overwrite"
    )
    assert len(project.rows("out.jsonl")) == 1, "what was there stays"


def test_help_lists_the_formats(annotate: Annotate) -> None:
    for verb in ("import", "export"):
        said = annotate.ok(verb, "--help")
        assert all(f"\n    {name} " in said for name in FORMATS)


def test_over_the_api(tmp_path: Path) -> None:
    house = House(tmp_path)
    sent = {"headers": house.headers["olga"], "params": {"format": "fastchat"}}
    body = json.dumps([VOTE, TIE])
    done = house.client.post(f"{house.address}/items", content=body, **sent)
    assert (done.status_code, done.json()["items"]) == (200, 2)
    assert done.json()["lost"] == ["`openai_moderation`: 2 rows say it, and an import line has no place for it"]
    for content, says in (
        (gzip.compress(body.encode()), "items: gzipped; send it unzipped"),
        (json.dumps({**VOTE, "judge": 3}), "items, line 1: judge: Input should be a valid string"),
    ):
        refused = house.client.post(f"{house.address}/items", content=content, **sent)
        assert refused.status_code == 422 and says in refused.json()["detail"]
    unknown = house.client.post(f"{house.address}/items", content=body, headers=sent["headers"], params={"format": "?"})
    assert "there is no format '?'" in unknown.json()["detail"]
    preview = {"lines": json.dumps(VOTE), "format": "fastchat"}
    seen = house.client.post("/api/v1/projects/preview", json=preview, headers=sent["headers"]).json()
    assert (seen["count"], seen["items"][0]["key"], len(seen["lost"])) == (1, "q1", 1)
    listed = house.client.get("/api/v1/formats", headers=sent["headers"]).json()
    assert [one["name"] for one in listed] == list(FORMATS)
