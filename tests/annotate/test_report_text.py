"""The report as text: everything that the JSON says is there, in lines that a terminal shows."""

import random
from pathlib import Path

import pytest

from annotate.commands.report import report_text
from annotate.services.projects import find_project
from annotate.services.report import project_report
from tests.annotate.house import House, item


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Sixty pairs, three answers each: two raters who know, and one who clicks what is first, at once."""
    draw = random.Random(3)
    rows = []
    for number in range(60):
        best = draw.choice([[1, 2], [2, 1]])
        shown = draw.choice([[0, 1], [1, 0]])
        clicked = [1 + shown.index(0), 1 + shown.index(1)]
        row = item(f"q{number}", best, best, clicked, tags=["de" if number % 2 else "evil\x1b[31m tag"])
        for answer, seconds in zip(row["answers"], (40.0, 50.0, 2.0), strict=True):
            when = f"2026-11-16T{10 + number // 60}:{number % 60:02}:00Z"
            answer |= {"seconds": seconds, "shown": shown, "submitted_at": when, "flags": ["broken"] * (number == 3)}
            answer["ratings"] = {"honest": [1 + number % 3, 2]}
        rows.append(row)
    pay = {"amount": 12.0, "currency": "EUR", "per": "hour"}
    house = House(tmp_path_factory.mktemp("text"), *rows, item("gold", gold=[1, 2]), pay=pay, mask=["response"])
    house.rate("anna", 2, seconds=1800.0)
    with house.database.read() as session:
        project = find_project(session, "p")
        facts = project_report(session, project)
    return report_text(facts)


def line(text: str, start: str) -> str:
    (found,) = [one.strip() for one in text.splitlines() if one.strip().startswith(start)]
    return found


def test_how_far_it_is(text: str) -> None:
    assert line(text, "items      ") == "items      60, of which 60 have an answer; 1 gold items"
    assert "by 4 raters" in line(text, "answers  ")
    assert line(text, "flags") == "flags      broken 3"
    assert line(text, "masked") == "masked     names in 122 responses of 61 items"
    assert line(text, "cost") == "cost       12.00 EUR for 2 answers, 1.0 active hours"
    assert "a day;" in line(text, "finish")


def test_how_well_raters_agree(text: str) -> None:
    assert "Agreement on 60 pairs of responses with two answers or more" in text
    for name in ("same answer (raw)", "Krippendorff's alpha, nominal", "… ordinal", "Fleiss' kappa", "Cohen's kappa"):
        value, low, to, high = line(text, name).split()[-4:]
        assert 0 < float(low[1:]) < float(value) < float(high[:-1]) < 1 and to == "to"
    assert "Kendall" not in text, "there are only pairs"
    assert line(text, "honest") == "honest     60  1.00            1.00  (1.00 to 1.00)"
    assert line(text, "de ").split()[1] == "30"
    assert "\x1b" not in text and "evil" in text
    assert text.count("2026-11-16 10:") == 5, "three stretches of twenty, of which the last ends with what anna said"


def test_who_stands_out_and_why(text: str) -> None:
    told = line(text, "w2: ")
    assert "very fast, median 2.0 s where 15.0 s is too fast to read" in told
    assert "prefers one place on the screen: the first in 100% (95% 94% to 100%) of 60 pairs" in told
    assert "like a coin: reliability 0." in told
    assert not [one for one in text.splitlines() if one.strip().startswith(("w0: ", "w1: "))]
    assert float(line(text, "w0 ").split()[-4]) > 0.8


def test_a_project_without_answers_says_so(tmp_path: Path) -> None:
    house = House(tmp_path)
    with house.database.read() as session:
        text = report_text(project_report(session, find_project(session, "p")))
    assert "no item has two answers yet" in text and "Look at" not in text


def test_which_tags_are_low_and_how_many_are_too_small_to_tell(tmp_path: Path) -> None:
    a, b = [1, 2], [2, 1]
    rows = [item(f"low{n}", a, b, tags=["low"]) for n in range(20)]
    rows += [item(f"high{n}", *([a, a] if n % 2 else [b, b]), tags=["high"]) for n in range(40)]
    rows += [item(f"small{n}", a, b, tags=[f"s{n}"]) for n in range(3)]
    house = House(tmp_path, *rows)
    with house.database.read() as session:
        told = report_text(project_report(session, find_project(session, "p")))
    assert line(told, "clearly less than on the whole") == "clearly less than on the whole, of 2 tags compared: low"
    assert line(told, "with fewer than") == "with fewer than 20 items, not judged: 3"
