"""Deciding about an item: blind, in an order of one's own, with the votes afterwards; what others may know of it."""

import json
from pathlib import Path

import pytest

from annotate.services.privacy import data_of_member, erase
from annotate.store.tables import Audit, Decision, Member
from tests.annotate.house import House, item

SECRET = "quokka reasons"
VOTES = [
    {"rater": "w0", "ranks": [1, 2, 3], "strength": 2, "rationale": SECRET, "shown": [2, 1, 0]},
    {"rater": "w1", "ranks": [3, 2, 1], "strength": 1, "edited": {"response": 2, "text": "rewritten"}},
]


def contested(key: str = "q") -> dict:
    responses = [{"text": f"As Hal I say {name}", "model": f"model-{name}"} for name in "abc"]
    return {"id": key, "prompt": "Which?", "responses": responses, "answers": VOTES}


@pytest.fixture
def house(tmp_path: Path) -> House:
    items = [contested(), item("gold", [1, 2], gold=[1, 2]), item("pair", [1, 2], [2, 1]), item("none")]
    return House(tmp_path, *items, mask=["Hal"])


def test_blind_before_and_all_votes_after(house: House) -> None:
    seen = house.ask("rita", "GET", "/items/1/decision")
    assert (seen["decided"], seen["votes"], seen["others"], seen["models"]) == (None, None, None, None)
    told = json.dumps(seen)
    assert (
        SECRET not in told and "model-" not in told and "Hal" not in told and "█████" in seen["responses"][0][0]["html"]
    )
    letters = [response[0]["html"].split("say ")[1][0] for response in seen["responses"]]
    assert sorted(letters) == ["a", "b", "c"]
    assert house.ask("rita", "GET", "/items/1/decision") == seen, "the same order whenever she looks"

    decided = house.ask("rita", "PUT", "/items/1/decision", {"ranks": [1, 3, 2], "strength": 1, "rationale": "why"})
    assert [response[0]["html"] for response in decided["responses"]] == [one[0]["html"] for one in seen["responses"]]
    assert decided["decided"]["ranks"] == [1, 3, 2] and decided["decided"]["stands"]
    votes = {vote["rater"]: vote for vote in decided["votes"]}
    first, second = votes[house.pseudonyms["w0"]], votes[house.pseudonyms["w1"]]
    place = {"a": 0, "b": 1, "c": 2}
    assert first["ranks"] == [VOTES[0]["ranks"][place[letter]] for letter in letters]
    assert (first["strength"], first["rationale"], first["edited"]) == (2, SECRET, None)
    assert second["edited"] == {"response": letters.index("c"), "text": "rewritten"}
    assert decided["models"] is None, "reviewers never hear who wrote what"
    assert "w0" not in json.dumps(decided)
    assert house.ask("rita", "GET", "/items/1/decision") == decided
    # In the database it is in import order.
    with house.database.read() as session:
        (row,) = session.query(Decision)
        assert row.ranks == [[1, 3, 2][letters.index(letter)] for letter in "abc"]
        assert session.query(Audit).filter_by(action="decided").one().detail == {"item": 1, "decision": row.id}


def test_everybody_decides_for_themselves_and_the_newest_stands(house: House) -> None:
    house.ask("rita", "PUT", "/items/1/decision", {"ranks": [1, 1, 1]})
    other = house.ask("rob", "GET", "/items/1/decision")
    assert (other["decided"], other["votes"], other["others"]) == (None, None, None)
    other = house.ask("olga", "PUT", "/items/1/decision", {"ranks": [2, 1, 3], "rationale": "owner's"})
    models = [html[0]["html"].split("say ")[1][0] for html in other["responses"]]
    assert other["models"] == [f"model-{letter}" for letter in models]
    assert other["decided"]["stands"]
    (of_rita,) = other["others"]
    assert of_rita["by"] == house.pseudonyms["rita"] and of_rita["ranks"] == [1, 1, 1] and not of_rita["stands"]
    mine = house.ask("rita", "GET", "/items/1/decision")
    assert not mine["decided"]["stands"] and mine["others"][0]["rationale"] == "owner's"
    # Saying the same again is a new decision now, since another one stands; and then nothing new.
    for _ in range(2):
        mine = house.ask("rita", "PUT", "/items/1/decision", {"ranks": [1, 1, 1]})
        assert mine["decided"]["stands"]
    with house.database.read() as session:
        assert session.query(Decision).count() == 3


def test_orders_differ_between_people_and_items(tmp_path: Path) -> None:
    house = House(tmp_path, *(contested(f"q{n}") for n in range(12)))
    orders = {
        login: [
            "".join(
                one[0]["html"].split("say ")[1][0]
                for one in house.ask(login, "GET", f"/items/{n}/decision")["responses"]
            )
            for n in range(1, 13)
        ]
        for login in ("rita", "rob")
    }
    assert orders["rita"] != orders["rob"] and len(set(orders["rita"])) > 2


def test_strength_of_a_pair_is_about_what_was_shown(house: House) -> None:
    shown = house.ask("rita", "GET", "/items/3/decision")
    turned = "response 1" in shown["responses"][0][0]["html"]
    decided = house.ask("rita", "PUT", "/items/3/decision", {"ranks": [1, 2], "strength": -3})
    assert decided["decided"]["strength"] == -3 and decided["decided"]["ranks"] == [1, 2]
    with house.database.read() as session:
        (row,) = session.query(Decision)
        assert (row.ranks, row.strength) == (([2, 1], 3) if turned else ([1, 2], -3))


def test_what_can_not_be_decided(house: House) -> None:
    def refused(number: int, body: dict, status: int = 422) -> str:
        return house.ask("rita", "PUT", f"/items/{number}/decision", body, status)["detail"]

    assert "gold" in refused(2, {"ranks": [1, 2]})
    assert "gold" in house.ask("rita", "GET", "/items/2/decision", status=422)["detail"]
    assert "Nobody has answered" in refused(4, {"ranks": [1, 2]})
    assert "ranks" in refused(3, {"ranks": [1, 2, 3]})
    assert "rank 1" in refused(3, {"ranks": [2, 2]})
    assert "strength" in refused(3, {"ranks": [1, 2], "strength": 2})
    assert "no such item" in refused(99, {"ranks": [1, 2]}, 404)
    house.ask("anna", "GET", "/items/3/decision", status=403)
    with house.database.read() as session:
        assert session.query(Decision).count() == 0


def test_reasons_come_out_and_go_with_their_person(house: House) -> None:
    house.ask("rita", "PUT", "/items/1/decision", {"ranks": [1, 2, 3], "rationale": "my own words"})
    with house.database.write() as session:
        rita = session.query(Member).filter_by(rater="rita").one()
        (part,) = data_of_member(session, rita)["projects"]
        assert [one["rationale"] for one in part["decisions"]] == ["my own words"]
        erase(session, house.project, rita.id, by=None)
    with house.database.read() as session:
        (row,) = session.query(Decision)
        assert row.rationale is None and row.ranks
