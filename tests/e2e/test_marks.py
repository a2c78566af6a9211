"""Marking passages of responses: by mouse, by touch, by keyboard."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.annotate.conftest import Server
from tests.e2e.asking import HIGHLIGHTED, letters, pair, press, stored, told
from tests.e2e.conftest import House

pytestmark = pytest.mark.browser


def select(page: Any, text: str, passage: str) -> None:
    """Select by mouse, from the first character of a passage to its last."""
    found = page.locator(".response").filter(has_text=text).locator(".text")
    box = found.evaluate(
        """(text, passage) => {
            const body = text.querySelector(".body");
            const from = body.textContent.indexOf(passage);
            const place = (units) => {
              const walker = document.createTreeWalker(body, NodeFilter.SHOW_TEXT);
              while (walker.nextNode() && units > walker.currentNode.length) units -= walker.currentNode.length;
              return [walker.currentNode, units];
            };
            const range = document.createRange();
            range.setStart(...place(from));
            range.setEnd(...place(from + passage.length));
            const { left, right, top, bottom } = range.getBoundingClientRect();
            return { left, right, y: (top + bottom) / 2 };
        }""",
        passage,
    )
    page.mouse.move(box["left"] + 0.5, box["y"])
    page.mouse.down()
    page.mouse.move(box["right"] - 0.5, box["y"], steps=4)
    page.mouse.up()


@pytest.mark.parametrize("highlights", [True, False])
def test_passages_are_marked_by_mouse(
    page: Any, server: Server, house: House, begin: Callable, screenshots: Path, highlights: bool
) -> None:
    login = house.project(f"asks-marks-{highlights}", pair(), spans=True)
    if not highlights:
        page.add_init_script("delete CSS.highlights")
    begin(page, server.url, login)
    select(page, "Paris", "🗼 is")
    page.get_by_role("toolbar", name="Mark what is selected").get_by_role("button", name="Good").click()
    told(page, "Marked as good: “🗼 is”")
    assert page.get_by_role("toolbar").count() == 0
    select(page, "Lyon", "Lyon")
    page.get_by_role("button", name="Bad").click()
    assert page.evaluate(HIGHLIGHTED) == [["🗼 is"], ["Lyon"]]
    select(page, "Paris", "is it")
    page.get_by_role("button", name="Good").click()  # overlaps the first: one mark
    assert page.evaluate(HIGHLIGHTED) == [["🗼 is it"], ["Lyon"]]
    press(page, "p")
    assert page.locator("#mark-list li").count() == 2
    page.screenshot(path=screenshots / f"marks-{highlights}.png")
    select(page, "Lyon", "It is")
    page.get_by_role("button", name="Good").click()
    page.get_by_role("button", name="Remove the mark “It is”").click()
    select(page, "Lyon", "Lyon")
    page.get_by_role("button", name="Remove Del").click()
    assert page.evaluate(HIGHLIGHTED) == [["🗼 is it"], []]
    select(page, "Lyon", "Lyon")
    page.get_by_role("button", name="Bad").click()
    press(page, "4", "Enter")
    page.get_by_role("heading", name="All done").wait_for()
    spans = sorted(stored(house, login)[0]["spans"], key=lambda span: span["response"])
    assert spans == [
        {"response": 0, "start": 6, "end": 13, "text": "🗼 is it", "mark": "good"},
        {"response": 1, "start": 6, "end": 10, "text": "Lyon", "mark": "bad"},
    ]


def test_passages_are_marked_by_keys(page: Any, server: Server, house: House, begin: Callable) -> None:
    text = "One two 🗼 three. Four five six.\n\n* seven\n* eight"
    login = house.project("asks-mark-keys", pair(first=text, second="Nine ten."), spans=True)
    begin(page, server.url, login)
    first = letters(page)["Nine ten."] == "B"
    if not first:
        press(page, "m", "2")  # a digit goes to a response
    else:
        press(page, "m")
    letter = "A" if first else "B"
    told(page, f"{letter}: “One”")
    press(page, "ArrowRight", "Shift+ArrowRight")
    told(page, f"{letter}: “two 🗼 three”")
    press(page, "g")
    told(page, "Marked as good: “two 🗼 three”")
    press(page, "m")  # goes on behind it
    told(page, f"{letter}: “Four”")
    press(page, "ArrowDown", "ArrowDown")
    told(page, f"{letter}: “eight”")
    press(page, "b")
    press(page, "m", "ArrowLeft", "ArrowLeft", "Escape")
    assert page.get_by_role("toolbar").count() == 0
    press(page, "m", "1" if not first else "2")
    told(page, "“Nine”")
    press(page, "Shift+ArrowDown")
    told(page, "“Nine ten.”")
    press(page, "Tab", "Enter")  # the button for bad
    told(page, "Marked as bad: “Nine ten.”")
    press(page, "3", "Enter")
    page.get_by_role("heading", name="All done").wait_for()
    visible = "One two 🗼 three. Four five six.\n\nseven\neight\n"
    spans = stored(house, login)[0]["spans"]
    assert [(span["response"], span["text"], span["mark"]) for span in spans] == [
        (0, "two 🗼 three", "good"),
        (0, "eight", "bad"),
        (1, "Nine ten.", "bad"),
    ]
    assert all(span["text"] == visible[span["start"] : span["end"]] for span in spans if span["response"] == 0), spans


def test_a_finger_marks(phone: Any, server: Server, house: House, begin: Callable, screenshots: Path) -> None:
    login = house.project("asks-mark-touch", pair(), spans=True)
    begin(phone, server.url, login)
    body = phone.locator(".response").filter(has_text="Lyon").locator("strong")
    body.scroll_into_view_if_needed()
    # A long press selects the word; headless Chromium has none, so the selection that it makes is made here.
    body.evaluate("word => getSelection().selectAllChildren(word)")
    phone.get_by_role("button", name="Bad").wait_for()
    phone.screenshot(path=screenshots / "marks-touch.png")
    bar = phone.locator(".marker").bounding_box()
    assert bar["x"] >= 0 and bar["x"] + bar["width"] <= 360
    phone.get_by_role("button", name="Bad").tap()
    told(phone, "Marked as bad: “Lyon”")
    phone.get_by_role("radio", name="Same").tap()
    phone.locator("#submit").tap()
    phone.get_by_role("heading", name="All done").wait_for()
    assert [span["text"] for span in stored(house, login)[0]["spans"]] == ["Lyon"]
