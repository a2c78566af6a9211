"""What the report says: pace and forecast, cost, masks, what stands out in single raters; and to whom."""

import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from annotate.services.projects import find_project
from annotate.services.report import agreement_report, forecast, project_report
from annotate.store.tables import Item
from preferences.stats.intervals import wilson
from tests.annotate.house import House, item

PAY = {"amount": 18.0, "currency": "EUR", "per": "hour"}
MONDAY = date(2026, 11, 16)


def days(*counts: int) -> dict[date, int]:
    """Answers on each day up to Monday."""
    return {MONDAY - timedelta(days=len(counts) - 1 - number): count for number, count in enumerate(counts)}


def test_forecast_by_hand() -> None:
    # 30 answers in three days are 10 a day; 25 are left: three days more.
    assert forecast(days(5, 10, 15), 25, MONDAY) == {"day": "2026-11-19", "per_day": 10.0, "left": 25}
    # Ten days, of which the last seven that had answers began on the third: 7 answers in 8 days.
    found = forecast(days(9, 9, 1, 1, 1, 1, 0, 1, 1, 1), 7, MONDAY)
    assert found == {"day": "2026-11-24", "per_day": 7 / 8, "left": 7}
    # The same answers, and then four days without: it slows down.
    assert forecast(days(5, 10, 15), 25, MONDAY + timedelta(days=3))["per_day"] == 5.0
    # The server's clock was set back by a day.
    assert forecast(days(10), 25, MONDAY - timedelta(days=1))["per_day"] == 10.0


def test_no_forecast_without_ground() -> None:
    for per_day, left, closed in (
        ({}, 10, False),
        (days(4), 0, False),
        (days(4), 10, True),
        (days(1), 10_000_000, False),
    ):
        assert forecast(per_day, left, MONDAY, closed=closed)["day"] is None
    assert forecast({}, 10, MONDAY) == {"day": None, "per_day": 0.0, "left": 10}


@pytest.fixture
def house(tmp_path: Path) -> House:
    """Anna answered 12 items, always what stood first; ben 4 of the same. Each took the seconds said."""
    items = [item(f"i{number}", responses=2, overlap=2) for number in range(20)]
    items[0]["responses"] = ["As GPT-4 I like gpt-4.", "fine"]
    items[1]["responses"] = ["I am Claude", "so am I, GPT 4"]
    made = House(tmp_path, *items, mask=["GPT-4", "claude"], pay=PAY, gold_rate=0.0)
    made.rate("anna", 12, seconds=30.0)
    made.rate("ben", 4, seconds=60.0)
    return made


def report(house: House, login: str = "olga") -> dict[str, Any]:
    return house.ask(login, "GET", "/report")


def person(house: House, name: str, login: str = "olga") -> dict[str, Any]:
    return next(one for one in report(house, login)["people"] if one["pseudonym"] == house.pseudonyms[name])


def test_progress_masks_and_cost(house: House) -> None:
    facts = report(house)
    today = time.strftime("%Y-%m-%d", time.gmtime())
    assert facts["per_day"] == [{"day": today, "answers": 16}]
    tomorrow = (date.fromisoformat(today) + timedelta(days=2)).isoformat()  # 24 slots left at 16 a day
    assert facts["finish"] == {"day": tomorrow, "per_day": 16.0, "left": 24}
    assert facts["masked"] == {"responses": 3, "items": 2}
    seconds = 12 * 30.0 + 4 * 60.0
    assert facts["cost"] == {"answers": 16, "active_seconds": seconds, "amount": pytest.approx(3.0), "currency": "EUR"}
    anna = person(house, "anna")
    assert (anna["paid"], anna["active_seconds"], anna["cost"]) == (12, 360.0, pytest.approx(1.8))
    assert [one["role"] for one in facts["people"]] == ["rater", "rater", "owner", "reviewer", "reviewer"]


def test_a_revision_is_not_paid_twice(house: House) -> None:
    given = house.ask("ben", "GET", "/answers/mine")["answers"][0]
    task = house.ask("ben", "POST", f"/answers/{given['answer']}/reopen")
    body = {"assignment": task["assignment"], "ranks": [2, 1], "key": "the revision", "revises": given["answer"]}
    house.ask("ben", "POST", "/answers", {**body, "seconds": 15.0})
    ben = person(house, "ben")
    assert (ben["paid"], ben["active_seconds"]) == (4, 4 * 60.0 + 15.0)
    mine = house.ask("ben", "GET", "/mine")
    assert (mine["answers"], mine["active_seconds"]) == (4, 255.0), "the rater sees the same"
    assert mine["earned"] == ben["cost"]


def test_what_stands_out_in_single_raters(house: House) -> None:
    anna, ben = person(house, "anna"), person(house, "ben")
    # Both preferred what stood first every time: 12 pairs are too few to call it a bias.
    assert anna["position_bias"] == {"first": 1.0, "interval": wilson(12, 12), "n": 12, "biased": False}
    house.rate("anna", 8)
    assert person(house, "anna")["position_bias"]["biased"] and not ben["position_bias"]["biased"]
    # Four items have two answers; anna sides with ben where they were shown the same order.
    same, n = round(4 * ben["agreement"]["value"]), ben["agreement"]["n"]
    assert n == 4 and ben["agreement"] == {"value": same / 4, "interval": wilson(same, 4), "n": 4}
    # Medians 30 and 60: a third of 45 is 15, and nobody is below.
    assert anna["speeder"] == {"is": False, "median_seconds": 30.0, "limit_seconds": 15.0}
    assert person(house, "olga")["speeder"] is None and person(house, "olga")["agreement"] is None


def test_somebody_in_a_hurry_is_seen(tmp_path: Path) -> None:
    house = House(tmp_path, *(item(f"i{number}", overlap=2) for number in range(12)), gold_rate=0.0)
    house.rate("anna", 11, seconds=2.0)
    house.rate("ben", 2, seconds=50.0)
    assert person(house, "anna")["speeder"] == {
        "is": True,
        "median_seconds": 2.0,
        "limit_seconds": pytest.approx(26 / 3),
    }
    assert report(house)["cost"] is None and person(house, "anna")["cost"] is None, "no pay was said"


def test_reviewers_see_pseudonyms_and_no_pay(house: House) -> None:
    facts = report(house, "rita")
    assert facts["cost"] is None
    for one in facts["people"]:
        assert one["rater"] == one["pseudonym"] and one["name"] is None and one["cost"] is None
    raters = [one["pseudonym"] for one in facts["people"] if one["role"] == "rater"]
    assert raters == sorted(raters), "the order of the names would say something, too"
    assert person(house, "anna", "rita")["position_bias"] == person(house, "anna")["position_bias"]


def test_what_is_paid_is_for_owners(house: House) -> None:
    assert house.ask("olga", "GET", "")["pay"] == PAY
    assert house.ask("rita", "GET", "")["pay"] is None


def test_the_agreement_alone_is_the_reports(house: House) -> None:
    facts = report(house)
    parts = ["agreement", *(f"agreement_{part}" for part in ("by_dimension", "by_tag", "over_time")), "rater_pairs"]
    assert house.ask("rita", "GET", "/agreement") == {
        key: facts[key] for key in ("format", "items", "answers", "raters", *parts)
    }
    with house.database.read() as session:
        assert agreement_report(session, find_project(session, "p"))["raters"] == 2


def test_agreement_in_parts(tmp_path: Path) -> None:
    """Imported: forty pairs in an hour, of which the first twenty are alike; ratings of some; a gold item apart."""
    rows = []
    for number in range(40):
        row = item(f"i{number:02}", [1, 2], [1, 2] if number < 20 else [2, 1], tags=["late"] * (number >= 20) + ["de"])
        for answer in row["answers"]:
            answer["submitted_at"] = f"2026-11-16T10:{number:02}:00Z"
            answer["ratings"] = {"honest": [1, number % 3]} if number < 10 else None
        rows.append(row)
    house = House(tmp_path, *rows, item("gold", gold=[1, 2], tags=["late"]), item("one", [1, 2]))
    facts = report(house)
    assert facts["agreement"]["raw"] == 0.5 and facts["agreement"]["cohen_kappa_pairs"] == 1
    tags = {row["tag"]: row for row in facts["agreement_by_tag"]}
    assert (tags["de"]["items"], tags["late"]["items"], tags["late"]["raw"]) == (40, 20, 0.0)
    assert (tags["de"]["less"], tags["late"]["less"]) == (False, True)
    early, late = facts["agreement_over_time"]
    assert (early["from"], early["to"]) == ("2026-11-16T10:00:00Z", "2026-11-16T10:19:00Z")
    assert (early["raw"], late["raw"]) == (1.0, 0.0)
    (honest,) = facts["agreement_by_dimension"]
    assert (honest["dimension"], honest["items"], honest["units"], honest["raw"]) == ("honest", 10, 20, 1.0)
    (pair,) = facts["rater_pairs"]
    people = {one["pseudonym"]: one for one in facts["people"]}
    assert pair["units"] == 40 and {people[name]["rater"] for name in pair["raters"]} == {"w0", "w1"}
    assert pair["kappa"] == 0.0, "w0 prefers the first throughout"
    assert people[pair["raters"][0]]["kappa"] == {"value": 0.0, "interval": [0.0, 0.0], "n": 40}
    assert person(house, "olga")["kappa"] is None
    reviewed = report(house, "rita")
    assert reviewed["rater_pairs"] == facts["rater_pairs"], "pseudonyms for everybody"


def test_the_same_on_postgresql(tmp_path: Path, new_database: Callable[[], str]) -> None:
    """The queries of report, contested items, decisions and previews, on both databases."""
    told = []
    for where in (tmp_path, new_database()):
        votes = [[1, 2], [1, 2], [2, 1], [1, 2], [1, 2]]  # what Anna says goes by the places on her screen
        rows = [item(f"i{number}", *votes, overlap=2) for number in range(6)]
        house = House(where, *rows, item("gold", gold=[1, 2]), pay=PAY, gold_rate=0.0, mask=["i1"])
        house.rate("anna", 3, seconds=30.0)
        house.ask("rita", "PUT", "/items/2/decision", {"ranks": [1, 2]})
        facts = report(house)
        pages = [house.ask("rita", "GET", "/contested"), house.ask("rita", "GET", "/agreement")]
        pages[0]["items"].sort(key=lambda row: row["item"])
        look = house.ask("olga", "GET", "/exports/preview")
        told.append([facts["cost"], facts["per_day"], facts["masked"], look["counts"], look["warnings"]])
        told[-1].append([(row["item"], row["answers"], row["decided"]) for row in pages[0]["items"]])
        assert pages[1]["answers"] == 33 and look["counts"]["rankings"] == 6
        house.database.engine.dispose()
    assert told[0] == told[1]


def test_ten_thousand_items_with_three_answers_take_two_seconds(tmp_path: Path) -> None:
    """Of processor time, which other work on the machine does not lengthen; twice that is still let through."""
    answers = [[1, 2], [2, 1], [1, 2]]
    rows = [item(f"i{number}", *answers, responses=2) for number in range(10_000)]
    house = House(tmp_path, *rows, mask=["GPT-4"], pay=PAY)
    with house.database.read() as session:
        project = find_project(session, "p")
        begun = time.process_time()
        facts = project_report(session, project)
        assert time.process_time() - begun < 4
    assert facts["answers"] == 30_000


def test_who_can_be_compared_with_nobody_has_no_reliability(tmp_path: Path) -> None:
    rows = [item("shared", [1, 2], [1, 2]), item("alone"), item("gold", gold=[1, 2])]
    rows[1]["answers"] = [{"rater": "hermit", "ranks": [1, 2]}]
    rows[2]["answers"] = [{"rater": "tested", "ranks": [1, 2]}]
    house = House(tmp_path, *rows)
    people = {one["rater"]: one for one in report(house)["people"]}
    assert [people[name]["reliability"] is None for name in ("w0", "w1", "hermit", "tested")] == [
        False, False, True, False,
    ]  # fmt: skip
    assert people["hermit"]["reliability_interval"] is None and people["hermit"]["spammer"] is None
    with house.database.read() as session:
        number = session.scalars(select(Item.id).where(Item.key == "alone")).one()
    house.ask("rita", "PUT", f"/items/{number}/decision", {"ranks": [1, 2]})
    assert person(house, "hermit")["reliability"] is not None
