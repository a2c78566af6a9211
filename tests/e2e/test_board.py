"""Ranking on the board and by keys: by mouse, by touch, by keyboard; they give the same answer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.annotate.conftest import Server
from tests.e2e.asking import FOUR, RANKS, letters, pair, press, ranked_by_keys, shown, stored, told
from tests.e2e.conftest import House

pytestmark = pytest.mark.browser


def ranked_by_arrows(page: Any, wanted: dict[str, int]) -> None:
    press(page, "k")
    assert page.evaluate("document.activeElement.classList.contains('board-card')")
    for text, letter in letters(page).items():
        press(page, letter)  # the focus goes to its card
        name = page.evaluate("document.activeElement.getAttribute('aria-label')")
        assert name == f"Response {letter}. {letter}: no rank yet."
        for _ in range(len(wanted) + 1 - wanted[text]):
            press(page, "ArrowUp")
        told(page, f"{letter}: rank {wanted[text]}")


def ranked_by_digits_on_the_board(page: Any, wanted: dict[str, int]) -> None:
    press(page, "k")
    for text in shown(page):
        press(page, str(wanted[text]))  # the focus goes on to the next card by itself


def card(page: Any, text: str) -> Any:
    return page.locator(".board-card").filter(has_text=text)


def row(page: Any, rank: int) -> Any:
    return page.locator(f".rank[data-rank='{rank}']")


def middle(box: dict[str, float]) -> tuple[float, float]:
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def ranked_by_mouse(page: Any, wanted: dict[str, int]) -> None:
    page.get_by_role("button", name="Board").click()
    for text, rank in wanted.items():
        page.mouse.move(*middle(card(page, text).bounding_box()))
        page.mouse.down()
        page.mouse.move(*middle(row(page, rank).bounding_box()), steps=5)
        assert row(page, rank).evaluate("row => row.classList.contains('over')")
        page.mouse.up()


def ranked_by_clicks(page: Any, wanted: dict[str, int]) -> None:
    page.get_by_role("button", name="Board").click()
    for text, rank in wanted.items():
        card(page, text).click()
        row(page, rank).locator(".number").click()


@pytest.mark.parametrize(
    "way", [ranked_by_keys, ranked_by_arrows, ranked_by_digits_on_the_board, ranked_by_mouse, ranked_by_clicks]
)
def test_board_and_keys_give_the_same_answer(
    page: Any, server: Server, house: House, begin: Callable, way: Callable
) -> None:
    login = house.project(f"asks-{way.__name__}", {"prompt": "Count!", "responses": FOUR})
    begin(page, server.url, login)
    way(page, RANKS)
    assert page.locator("#scale").is_enabled()
    checked = {
        text: int(page.locator(".response").filter(has_text=text).locator(".ranks :checked").get_attribute("value"))
        for text in FOUR
    }
    assert checked == RANKS  # and the keys show what the board shows
    press(page, "3", "Enter")
    page.get_by_role("heading", name="All done").wait_for()
    [answer] = stored(house, login)
    assert (answer["ranks"], answer["strength"]) == ([3, 1, 2, 2], 3)


def test_a_finger_drags_on_the_board(
    phone: Any, server: Server, house: House, begin: Callable, screenshots: Path
) -> None:
    login = house.project("asks-touch", {"prompt": "Count!", "responses": FOUR})
    begin(phone, server.url, login)
    phone.locator("#board-fold").tap()
    phone.locator("#board-rows").scroll_into_view_if_needed()
    finger = phone.context.new_cdp_session(phone)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})

    for text, rank in RANKS.items():
        card(phone, text).scroll_into_view_if_needed()
        x, y = middle(card(phone, text).bounding_box())
        to_x, to_y = middle(row(phone, rank).bounding_box())
        touch("touchStart", (x, y))
        for step in range(1, 7):
            touch("touchMove", (x + (to_x - x) * step / 6, y + (to_y - y) * step / 6))
            phone.wait_for_timeout(20)  # no finger is faster: Chromium takes what is for a fling, and no tap after it
        touch("touchEnd")
    phone.screenshot(path=screenshots / "board-touch.png")
    phone.wait_for_timeout(600)
    phone.get_by_role("radio", name="clearly better").tap()
    phone.locator("#submit").tap()
    phone.get_by_role("heading", name="All done").wait_for()
    [answer] = stored(house, login)
    assert (answer["ranks"], answer["strength"]) == ([3, 1, 2, 2], 2)


def test_ranks_that_leave_numbers_out_are_counted_on(page: Any, server: Server, house: House, begin: Callable) -> None:
    login = house.project("asks-gaps", {"prompt": "Count!", "responses": FOUR[:3]}, strength=False)
    begin(page, server.url, login)
    wanted = {"zeroth": 2, "first": 3, "second": 3}
    ranked_by_keys(page, wanted)
    best = letters(page)["zeroth"]
    assert page.locator("#hint").inner_text().startswith(f"{best}, then ")
    assert page.locator(".response.best .letter").inner_text() == best
    press(page, "Enter")
    page.get_by_role("heading", name="All done").wait_for()
    assert stored(house, login)[0]["ranks"] == [1, 2, 2]


def test_nine_responses_keep_every_key(page: Any, server: Server, house: House, begin: Callable) -> None:
    """Letters of responses and letters of what the page can do: with Shift a letter is always the page's."""
    nine = {"prompt": "Nine?", "responses": [f"text {n}" for n in range(9)]}
    login = house.project("asks-nine", nine, edit=True, strength=False)
    begin(page, server.url, login)
    assert page.locator("#flag-open kbd").inner_text() == "⇧F" and page.locator("#skip-open kbd").inner_text() == "S"
    press(page, "f", "1")
    ranked = page.locator(".response").nth(5).locator(".ranks :checked")
    assert ranked.get_attribute("value") == "1"
    press(page, "Shift+F")
    page.locator("#flag[open]").wait_for()
    press(page, "2", "Enter", "k")
    page.get_by_role("button", name="Flag (1)").wait_for()
    order = shown(page)
    for number, letter in enumerate("ABCDEFGHI"):
        press(page, letter.lower(), str(9 - number))
    assert page.locator(".rank .board-card .letter").all_inner_texts() == list("IHGFEDCBA")
    press(page, "ArrowDown", "ArrowDown")  # the last one ranked
    told(page, "I: rank 3, tied with G.")
    press(page, "ArrowUp", "ArrowUp", "Enter")
    page.get_by_role("heading", name="All done").wait_for()
    [answer] = stored(house, login)
    assert answer["ranks"] == [9 - order.index(f"text {n}") for n in range(9)] and answer["flags"] == ["broken"]


def test_keys_of_other_layouts(page: Any, server: Server, house: House, begin: Callable) -> None:
    """An Arabic layout writes an Arabic letter for F, a French one é for 2: keys are known by their place."""
    login = house.project("asks-layouts", pair())
    begin(page, server.url, login)
    strike = "([key, code]) => document.body.dispatchEvent(new KeyboardEvent('keydown', {key, code, bubbles: true}))"
    page.evaluate(strike, ["é", "Digit2"])
    assert page.locator("#scale :checked").get_attribute("value") == "-2"
    page.evaluate(strike, ["ب", "KeyF"])
    page.locator("#flag[open]").wait_for()
