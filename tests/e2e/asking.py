"""Projects that ask for more than a ranking, what a page shows of them, and what arrives in the database."""

import json
from typing import Any

from tests.e2e.conftest import House

DIMENSIONS = [
    {"name": "helpful", "anchors": ["useless", "", "fine", "", "just right"]},
    {"name": "safe", "anchors": ["<b>harmful</b>", "", "harmless"]},
]
EVERYTHING: dict[str, Any] = {
    "dimensions": DIMENSIONS,
    "all_bad": True,
    "rationale": "required",
    "edit": True,
    "spans": True,
}
FOUR = ["zeroth", "first", "second", "third"]
RANKS = {"zeroth": 3, "first": 1, "second": 2, "third": 2}

# What is highlighted as good and as bad.
HIGHLIGHTED = """() => ["good", "bad"].map((kind) => "highlights" in CSS
  ? [...(CSS.highlights.get("concord-" + kind) ?? [])].map(String)
  : [...document.querySelectorAll(`mark[data-mark=${kind}]`)].map((mark) => mark.textContent))"""


def pair(*, first: str = "Paris 🗼 is it.", second: str = "It is **Lyon**.") -> dict[str, Any]:
    return {"prompt": "Which city?", "responses": [first, second]}


def shown(page: Any) -> list[str]:
    """What the responses say, in the order on the screen."""
    return page.locator(".response .body").all_inner_texts()


def letters(page: Any) -> dict[str, str]:
    """{what a response says: its letter}"""
    return dict(zip(shown(page), "ABCDEFGHI", strict=False))


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def stored(house: House, login: str) -> list[dict[str, Any]]:
    """A rater's answers as the database has them, the oldest first, in the order of the import."""
    columns = ("revision", "ranks", "strength", "ratings", "flags", "spans", "rationale", "edited")
    rows = house.run(
        "SELECT revision, ranks, strength, ratings, flags, spans, rationale, edited FROM answers"
        " JOIN members ON members.id = member_id LEFT JOIN answer_texts ON answer_id = answers.id"
        " WHERE rater = ? ORDER BY answers.id",
        login,
    )
    answers = [dict(zip(columns, row, strict=True)) for row in rows]
    for answer in answers:
        for name in ("ranks", "ratings", "flags", "spans", "edited"):
            answer[name] = json.loads(answer[name]) if answer[name] else None
    return answers


def submit(page: Any) -> None:
    press(page, "Enter")
    page.get_by_text("Saved ✓").wait_for()


def told(page: Any, words: str) -> None:
    """Wait until a screen reader has been told it."""
    page.locator("#told").get_by_text(words).wait_for(state="attached")


def ranked_by_keys(page: Any, wanted: dict[str, int]) -> None:
    for text in shown(page):
        press(page, str(wanted[text]))
