"""Which items are contested, and how the list is read."""

from pathlib import Path

import pytest

from tests.annotate.house import House, item

A, B, TIE = [1, 2], [2, 1], [1, 1]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(
        tmp_path,
        item("alike", A, A, A),
        item("split", A, B),
        item("mostly", A, A, B),
        item("once", A),
        item("none"),
        item("gold", A, B, gold=[1, 2]),
        item("four", [1, 2, 3, 4], [4, 3, 2, 1], [1, 2, 3, 4], responses=4),
        {**item("flagged", A), "answers": [{"rater": "w0", "ranks": A, "flags": ["unsafe", "all-bad"]}]},
        item("skipped", priority=9.0),
    )


def test_the_most_contested_comes_first(house: House) -> None:
    skipped = house.ask("anna", "POST", "/next", {})["task"]["assignment"]
    house.ask("anna", "POST", "/skips", {"assignment": skipped, "reason": "broken"})
    page = house.ask("rita", "GET", "/contested")
    rows = {row["key"]: row for row in page["items"]}
    # Two of three pairs of answers differ on every pair of "four" and on the one of "mostly"; ties in the order of
    # the import. Then what has flags or skips, and last what all agree on.
    assert list(rows) == ["split", "mostly", "four", "flagged", "skipped", "alike"]
    apart = [rows[key]["disagreement"] for key in ("split", "mostly", "four", "alike")]
    assert apart == pytest.approx([1, 2 / 3, 2 / 3, 0])
    assert rows["flagged"]["disagreement"] is None and rows["skipped"]["disagreement"] is None
    assert rows["flagged"]["flags"] == {"all-bad": 1, "unsafe": 1} and rows["skipped"]["flags"] == {"broken": 1}
    assert (rows["four"]["responses"], rows["four"]["answers"], rows["skipped"]["answers"]) == (4, 3, 0)
    assert rows["split"]["prompt"] == "What is split?" and page["after"] is None
    assert "gold" not in rows and "once" not in rows


def test_what_is_decided_goes_to_the_end(house: House) -> None:
    page = house.ask("rita", "GET", "/contested")
    number = page["items"][0]["item"]
    house.ask("rita", "PUT", f"/items/{number}/decision", {"ranks": [1, 2]})
    for login in ("rita", "rob", "olga"):
        rows = house.ask(login, "GET", "/contested")["items"]
        assert rows[-1]["item"] == number and rows[-1]["decided"]
        assert not any(row["decided"] for row in rows[:-1])


def test_in_pages(house: House) -> None:
    whole = [row["key"] for row in house.ask("olga", "GET", "/contested")["items"]]
    read, after = [], 0
    while after is not None:
        page = house.ask("olga", "GET", "/contested", params={"after": after, "limit": 2})
        read += [row["key"] for row in page["items"]]
        after = page["after"]
    assert read == whole and len(whole) == 5
