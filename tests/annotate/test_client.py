"""The typed client against a real server: a whole campaign over HTTP, and an export with a token from elsewhere."""

import json
import time
from pathlib import Path

import pytest
from datasets import load_dataset

from annotate.api.client import Client, ProblemError
from annotate.services.assignment import LEASE_SECONDS
from preferences.errors import BadInput
from tests.annotate.conftest import PASSWORD, Annotate

ITEMS = [{"id": n, "prompt": f"Question {n}?", "responses": ["one", "two"], "tags": ["t"]} for n in range(12)]


@pytest.fixture
def campaign(annotate: Annotate) -> Annotate:
    annotate.ok("project", "create", "p", "--overlap", "2", "--gold-rate", "0", "--edit")
    for login, role in (("olga", "owner"), ("rita", "reviewer"), ("anna", "rater"), ("ben", "rater")):
        annotate.person("p", login, "--role", role)
    return annotate


def signed_in(url: str, login: str) -> Client:
    client = Client(url)
    client.sign_in(login, PASSWORD)
    return client


def test_a_whole_campaign_over_http(campaign: Annotate) -> None:
    with campaign.served(api_only=True) as server:
        olga, rita, anna = (signed_in(server.url, login) for login in ("olga", "rita", "anna"))
        project = olga.project("p")
        assert olga.import_items(project.id, ITEMS).items == 12
        assert olga.import_items(project.id, ITEMS).unchanged == 12
        with pytest.raises(ProblemError, match=r"items, line 1: .*responses") as problem:
            olga.import_items(project.id, [{"id": "x", "prompt": "?", "responses": ["one"]}])
        assert (problem.value.status, problem.value.rule) == (422, "bad-input")
        assert olga.new_guidelines(project.id, "Be *fair*.") == 1

        with pytest.raises(ProblemError) as problem:
            anna.next(project.id)
        assert problem.value.rule == "guidelines-first"
        anna.read_guidelines(project.id, 1)
        task = anna.next(project.id).task
        assert task is not None
        ahead = anna.next(project.id, holding=[task.assignment]).task
        assert ahead is not None and ahead.assignment != task.assignment
        version = anna.save_draft(project.id, task.assignment, {"ranks": [1, None]}, None)
        assert anna.save_draft(project.id, task.assignment, {"ranks": [1, 2]}, version) == 2
        assert anna.draft(project.id, task.assignment).body == {"ranks": [1, 2]}
        assert anna.renew(project.id, task.assignment) == LEASE_SECONDS
        rest = {
            "strength": -2,
            "rationale": "It *is*.",
            "flags": ["unsafe"],
            "seconds": 3.5,
            "holding": [ahead.assignment],
        }
        edited = {"response": 1, "text": "two, and more"}
        done = anna.submit(project.id, task.assignment, [1, 2], key="a-key-of-mine", edited=edited, **rest)
        assert done.next.task is not None and done.next.task.assignment not in (task.assignment, ahead.assignment)
        again = anna.reopen(project.id, done.receipt.answer)
        assert again.given is not None and (again.given.ranks, again.given.strength) == ([1, 2], -2)
        assert again.given.edited is not None and again.given.edited.model_dump() == edited
        second = anna.submit(project.id, task.assignment, [2, 1], strength=1, revises=again.revises)
        assert (second.receipt.revision, second.next.progress.done) == (2, 1)
        anna.skip(project.id, ahead.assignment, "cannot-judge", "Too hard.")
        assert [(one.answer, one.revision) for one in anna.my_answers(project.id)] == [(second.receipt.answer, 2)]
        for item in rita.items(project.id):
            assert item.models is None and item.overlap == 2
        (answer,) = rita.answers(project.id)
        shown = answer.shown or []
        assert answer.ranks == [[2, 1][shown.index(n)] for n in range(2)] and answer.rater.startswith("rater-")
        assert (answer.guideline, answer.app_version, answer.flags) == (1, campaign.ok("--version").strip(), [])
        report = rita.report(project.id)
        assert report["flags"] == {"cannot-judge": 1}
        assert "anna" not in json.dumps(report) and "anna" in json.dumps(olga.report(project.id))
        assert rita.agreement(project.id)["answers"] == 1

        assert [(one.item, one.flags) for one in rita.contested(project.id)] == [(2, {"cannot-judge": 1})]
        blind = rita.decision(project.id, answer.item)
        assert blind.votes is None
        decided = rita.decide(project.id, answer.item, [1, 2], strength=-3, rationale="Clear.")
        assert decided.decided is not None and decided.decided.stands and decided.votes is not None
        assert decided.votes[0].rater == answer.rater and decided.responses == blind.responses
        look = olga.preview_export(project.id)
        assert look.counts["rankings"] == 1 and look.rows[0]["preference"] == 1.0 and look.rows[0]["strength"] == 3.0
        seen = olga.preview_items("".join(json.dumps(row) + "\n" for row in ITEMS))
        assert (seen.count, len(seen.items), seen.problem) == (12, 5, None)

        first, *_ = olga.items(project.id)
        assert olga.change_item(project.id, first, overlap=3, priority=2.5).version == 2
        with pytest.raises(ProblemError) as problem:
            olga.change_item(project.id, first, overlap=4)
        assert (problem.value.status, problem.value.rule, problem.value.facts["version"]) == (412, "wrong-version", 2)
        closed = olga.change_project(olga.project("p"), closed=True)
        assert closed.closed and anna.next(project.id).why == "project-closed"
        with pytest.raises(ProblemError) as problem:
            olga.import_items(project.id, [{**ITEMS[0], "id": "new"}])
        assert problem.value.rule == "project-closed"
        assert olga.create_project("q", overlap=3).role == "owner"
        with pytest.raises(ProblemError) as problem:
            rita.create_project("r")
        assert problem.value.rule == "forbidden"


def test_export_from_another_machine_with_a_token(campaign: Annotate, tmp_path: Path) -> None:
    """Who trains is seldom on the machine where people rate."""
    answers = [{"rater": "w1", "ranks": [1, 2]}, {"rater": "w2", "ranks": [1, 2]}]
    campaign.write("items.jsonl", *({**item, "answers": answers} for item in ITEMS))
    campaign.ok("import", "p", "items.jsonl")
    token = campaign.json("token", "create", "olga", "--name", "training", "--right", "export")["token"]
    campaign.environment["ANNOTATE_TOKEN"] = token
    with campaign.served(api_only=True) as server:
        at = ("--server", server.url)
        counts = campaign.json("export", "p", "there", *at)["counts"]
        campaign.ok("export", "p", "here")
        assert counts["rankings"] == 12
        for file in (campaign.folder / "here").iterdir():
            assert file.read_bytes() == (campaign.folder / "there" / file.name).read_bytes(), file.name
        assert len(load_dataset(str(campaign.folder / "there"))["train"]) == counts["train"]
        assert "is not empty" in campaign.refuses("export", "p", "there", *at)
        campaign.ok("export", "p", "there", "--overwrite", *at)
        assert "no project 'q'" in campaign.refuses("export", "q", "nowhere", *at)
        with Client(server.url, token) as client:  # the token carries no other right
            for attempt in (lambda: client.report(1), lambda: client.next(1), lambda: client.import_items(1, ITEMS)):
                with pytest.raises(ProblemError) as problem:
                    attempt()
                assert problem.value.rule == "forbidden"
        campaign.environment["ANNOTATE_TOKEN"] = "concord_of-nobody"
        assert "not valid" in campaign.refuses("export", "p", "nowhere", *at)
        del campaign.environment["ANNOTATE_TOKEN"]
        assert "needs a token" in campaign.refuses("export", "p", "nowhere", *at)
    assert not (campaign.folder / "nowhere").exists()
    began = time.monotonic()
    with pytest.raises(BadInput, match="can't be reached"):
        Client(server.url, token).me()
    assert time.monotonic() - began > 5  # it tried for a while


def test_guidelines_that_change_in_mid_answer_cost_no_answer(campaign: Annotate) -> None:
    """It counts as given under those that the rater has read; then the new ones come first."""
    campaign.write("items.jsonl", *ITEMS)
    campaign.ok("import", "p", "items.jsonl")
    with campaign.served(api_only=True) as server:
        olga, anna = signed_in(server.url, "olga"), signed_in(server.url, "anna")
        assert olga.new_guidelines(1, "The first ones.") == 1
        anna.read_guidelines(1, 1)
        task = anna.next(1).task
        assert task is not None
        assert olga.new_guidelines(1, "The second ones.") == 2
        done = anna.submit(1, task.assignment, [1, 2])
        assert (done.next.task, done.next.why) == (None, "guidelines-first")
        with pytest.raises(ProblemError) as problem:
            anna.next(1)
        assert problem.value.rule == "guidelines-first"
        anna.read_guidelines(1, 2)
        task = anna.next(1).task
        assert task is not None
        olga.change_project(olga.project("p"), consent="May we keep your answers?")
        skipped = anna.skip(1, task.assignment, "broken")
        assert (skipped.task, skipped.why) == (None, "consent-first")
        seen = anna.guidelines(1)
        assert not seen.consented
        olga.change_project(olga.project("p"), consent="May we keep your answers for ever?")
        with pytest.raises(ProblemError, match="text has changed"):
            anna._json("POST", "/projects/1/consent", {"agreed": True, "consent_hash": seen.consent_hash})
        anna.consent(1)
        assert anna.guidelines(1).consented and anna.next(1).task is not None
        assert [answer.guideline for answer in olga.answers(1)] == [1]
