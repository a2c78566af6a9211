"""What a project asks for beside the ranking: what arrives is what was done, and nothing of it gets lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.annotate.conftest import Annotate, Server
from tests.e2e.asking import (
    DIMENSIONS,
    EVERYTHING,
    FOUR,
    HIGHLIGHTED,
    RANKS,
    letters,
    pair,
    press,
    ranked_by_keys,
    shown,
    stored,
    submit,
    told,
)
from tests.e2e.conftest import House

pytestmark = pytest.mark.browser


def test_a_plain_project_is_two_key_presses(page: Any, server: Server, house: House, begin: Callable) -> None:
    login = house.project("asks-plain", pair(), pair())
    begin(page, server.url, login)
    assert page.locator("#panel").is_hidden()
    assert page.get_by_role("button", name="All bad").count() == 0
    assert page.get_by_role("button", name="Board").count() == page.get_by_role("button", name="More").count() == 0
    for key in ("x", "w", "e", "m", "p", "k"):
        press(page, key)  # nothing of this is there
    assert page.locator("#panel").is_hidden() and page.locator(".writer, .marker").count() == 0
    page.evaluate("window.presses = 0; addEventListener('keydown', () => window.presses++, true)")
    press(page, "2", "Enter")
    page.locator("#count").get_by_text("1 of 2").wait_for()  # the other item is on the screen
    press(page, "2", "Enter")
    page.get_by_role("heading", name="All done").wait_for()
    assert page.evaluate("window.presses") == 4
    answers = stored(house, login)
    assert len(answers) == 2
    assert all(answer[name] is None for answer in answers for name in ("ratings", "spans", "rationale", "edited"))


# --- ratings ------------------------------------------------------------------------------------------------------


def test_ratings_by_keys_follow_the_verdict(
    page: Any, server: Server, house: House, begin: Callable, screenshots: Path
) -> None:
    login = house.project("asks-ratings", pair(), pair(), dimensions=DIMENSIONS)
    begin(page, server.url, login)
    assert page.locator(".anchors").first.inner_text().split("\n") == ["1 useless", "3 fine", "5 just right"]
    assert page.locator(".anchors").last.locator("li").first.inner_text() == "1 <b>harmful</b>"  # text, not HTML
    press(page, "3")
    press(page, "Enter")
    told(page, "Rate response A: helpful.")  # what is missing is said, and nothing is sent
    assert page.locator("#count").inner_text().startswith("0 of")
    assert page.locator(".rate.current").get_attribute("data-field") == "rating-0-0"
    press(page, "4")
    told(page, "A, helpful: 4. Rate response B: helpful.")
    press(page, "5")
    told(page, "B, helpful: 5, just right. Rate response A: safe.")
    press(page, "9")  # there is no such step
    assert page.locator("#ratings-title").inner_text() == "Ratings: 2 of 4"
    press(page, "Backspace", "Backspace", "2")  # back to A's, which becomes 2
    press(page, "1", "3")
    told(page, "Enter submits.")
    page.screenshot(path=screenshots / "ratings.png")
    first = shown(page)[0].startswith("Paris")
    submit(page)

    helpful, safe = ([2, 5], [1, 3]) if first else ([5, 2], [3, 1])
    assert stored(house, login)[0]["ratings"] == {"helpful": helpful, "safe": safe}

    paris = letters(page)[next(text for text in shown(page) if text.startswith("Paris"))]
    page.get_by_role("radio", name="Same").click()
    for name in ("helpful", "safe"):
        for letter in "AB":
            steps = page.get_by_role("radiogroup", name=f"Response {letter}: {name}")
            steps.get_by_role("radio").nth(2 if letter == paris else 0).click()
    press(page, "Enter")
    page.get_by_role("heading", name="All done").wait_for()
    assert stored(house, login)[1]["ratings"] == {"helpful": [3, 1], "safe": [3, 1]}


# --- all bad, rationale -------------------------------------------------------------------------------------------


def test_all_bad_and_a_reason_that_must_be_given(page: Any, server: Server, house: House, begin: Callable) -> None:
    login = house.project("asks-why", pair(), all_bad=True, rationale="required")
    begin(page, server.url, login)
    press(page, "x")
    told(page, "All bad: none of the responses is good enough.")
    assert page.get_by_role("button", name="All bad").get_attribute("aria-pressed") == "true"
    assert page.locator("#flag-count").inner_text() == ""
    press(page, "f", "1", "Enter")  # the dialog of flags leaves it alone
    page.get_by_role("button", name="Flag (1)").wait_for()
    press(page, "5", "Enter")
    told(page, "Say in a few words why.")
    assert page.evaluate("document.activeElement.id") == "rationale"
    assert page.locator("#count").inner_text().startswith("0 of")
    page.keyboard.type("x 1 f s u: both are\n")
    press(page, "Enter")
    page.keyboard.type("wrong.")
    assert page.locator("dialog[open]").count() == 0 and page.locator("#scale :checked").get_attribute("value") == "1"
    press(page, "Control+Enter")
    assert page.evaluate("document.activeElement.id") == "submit"
    assert page.locator("#count").inner_text().startswith("0 of")  # that went back to the keys, and no further
    press(page, "7", "w", "End", "!", "Escape", "Enter")
    page.get_by_role("heading", name="All done").wait_for()
    [answer] = stored(house, login)
    assert answer["flags"] == ["unsafe", "all-bad"]
    assert answer["rationale"] == "x 1 f s u: both are\n\nwrong.!"


def test_a_reason_that_may_be_given_stays_out_of_the_way(
    page: Any, server: Server, house: House, begin: Callable
) -> None:
    login = house.project("asks-maybe", pair(), pair(), pair(), rationale="optional")
    begin(page, server.url, login)
    assert page.locator("#panel").is_hidden()
    press(page, "2")
    submit(page)
    press(page, "w")
    page.keyboard.type("   ")
    press(page, "Escape", "2", "Enter")
    page.locator("#count").get_by_text("2 of").wait_for()
    assert page.locator("#panel").is_visible()  # as the rater left it
    press(page, "p")
    assert page.locator("#panel").is_hidden()
    page.reload()
    page.locator("#concord[data-view=work]").wait_for()
    assert page.locator("#panel").is_hidden()
    press(page, "2", "Enter")
    page.get_by_role("heading", name="All done").wait_for()
    assert [answer["rationale"] for answer in stored(house, login)] == [None, None, None]


# --- rewriting ----------------------------------------------------------------------------------------------------


def test_the_best_response_is_rewritten(
    page: Any, server: Server, house: House, begin: Callable, screenshots: Path
) -> None:
    login = house.project("asks-edit", pair(), pair(), pair(), edit=True)
    begin(page, server.url, login)
    press(page, "e")
    told(page, "Rank the responses first")
    lyon = letters(page)["It is Lyon."]
    press(page, "1" if lyon == "A" else "7", "e")
    field = page.get_by_label(f"Your version of response {lyon}")
    assert field.input_value() == "It is **Lyon**."  # its source, not what is seen of it
    assert page.locator(".response:visible").count() == 1
    press(page, "Control+Enter", "Enter")  # unchanged: no edit
    page.locator("#count").get_by_text("1 of").wait_for()

    lyon = letters(page)["It is Lyon."]
    press(page, "1" if lyon == "A" else "7", "e", "Control+End")
    page.keyboard.type(" Really: 1, x, s!")
    page.get_by_text("Kept ✓").wait_for()
    page.screenshot(path=screenshots / "rewrite.png")
    press(page, "Escape")
    page.get_by_text("Rewritten ✓").wait_for()
    assert page.locator(".response:visible").count() == 2
    press(page, "Enter")
    page.locator("#count").get_by_text("2 of").wait_for()

    press(page, "4", "p")  # a tie: the rater chooses
    lyon = letters(page)["It is Lyon."]
    assert page.locator("#rewrite-tip").inner_text() == "A and B are equally good: choose which one."
    page.get_by_role("button", name=f"Rewrite {'AB'.replace(lyon, '')}").click()
    page.keyboard.type("Oh. ")
    page.get_by_role("button", name=f"Rewrite {lyon} instead").click()
    page.keyboard.type("No. ")
    page.get_by_role("button", name="Done").click()
    page.get_by_role("button", name="Take back").click()
    told(page, "The rewrite is taken back.")
    page.get_by_role("button", name=f"Rewrite {lyon}").click()
    page.keyboard.type("Well. ")
    press(page, "Escape", "Enter")
    page.get_by_role("heading", name="All done").wait_for()
    assert [answer["edited"] for answer in stored(house, login)] == [
        None,
        {"response": 1, "text": "It is **Lyon**. Really: 1, x, s!"},
        {"response": 1, "text": "Well. It is **Lyon**."},
    ]


# --- drafts, undo -------------------------------------------------------------------------------------------------


def test_everything_survives_and_comes_back(page: Any, tmp_path: Path, begin: Callable, screenshots: Path) -> None:
    """A reload, another machine, a restart of the server; then undo, and an answer that changes one thing."""
    annotate = Annotate(tmp_path)
    house = House(annotate)
    login = house.project("kept", {"prompt": "Count!", "responses": FOUR}, pair(), **EVERYTHING)

    def state() -> dict[str, Any]:
        return {
            "checked": [one.get_attribute("value") for one in page.locator(".desk :checked, #scale :checked").all()],
            "bad": page.locator("#all-bad").get_attribute("aria-pressed"),
            "why": page.locator("#rationale").input_value(),
            "marks": page.locator("#mark-list").inner_text(),
            "highlighted": page.evaluate(HIGHLIGHTED),
            "rewrite": page.locator("#rewrite-tip").inner_text(),
        }

    with annotate.served() as running:
        begin(page, running.url, login)
        ranked_by_keys(page, RANKS)
        press(page, "2", *"12341233", "x", "w")
        page.keyboard.type("Because.")
        press(page, "Escape", "e")
        page.keyboard.type("My ")
        press(page, "Escape", "m", "g")
        with page.expect_response("**/draft"):
            pass
        done = state()
        order = shown(page)
        assert done["marks"] and done["why"] and len(done["checked"]) == 4 + 1 + 8
        page.screenshot(path=screenshots / "everything.png")
        page.reload()
        page.locator("#concord[data-view=work]").wait_for()
        assert shown(page) == order and state() == done
    port = httpx.URL(running.url).port
    with annotate.served(port=port):
        page.evaluate("localStorage.clear()")  # as on another machine: the server's draft
        page.reload()
        page.locator("#concord[data-view=work]").wait_for()
        assert shown(page) == order and state() == done
        submit(page)
        press(page, "u")
        page.get_by_text("You are changing this answer").wait_for()
        assert shown(page) == order and state() == done
        press(page, "w", "End", "!", "Control+Enter", "Enter")
        page.get_by_text("Saved ✓").wait_for()
        first, second = stored(house, login)
    annotate.ok("export", login, "out")
    [exported] = [answer for ranking in annotate.rows("out/rankings.jsonl") for answer in ranking["answers"]]
    for name in ("ranks", "strength", "ratings", "flags", "spans", "edited"):
        assert exported[name] == second[name], name
    rated = {
        "helpful": dict(zip(order, [1, 2, 3, 4], strict=True)),
        "safe": dict(zip(order, [1, 2, 3, 3], strict=True)),
    }
    assert first["ranks"] == [3, 1, 2, 2] and first["flags"] == ["all-bad"] and first["rationale"] == "Because."
    assert first["edited"] == {"response": 1, "text": "My first"} and first["strength"] == 2
    assert first["ratings"] == {name: [values[text] for text in FOUR] for name, values in rated.items()}
    [span] = first["spans"]
    assert FOUR[span["response"]] == span["text"]
    assert second == {**first, "revision": 2, "rationale": "Because.!"}


# --- the page -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (768, 1024), (360, 740)])
@pytest.mark.parametrize("count", [2, 4])
def test_with_everything_on_there_is_room_to_read(
    page: Any, server: Server, house: House, begin: Callable, screenshots: Path, width: int, height: int, count: int
) -> None:
    long = [f"{word} " * 300 for word in FOUR[:count]]
    login = house.project(f"asks-room-{width}-{count}", {"prompt": "Long?", "responses": long}, **EVERYTHING)
    page.set_viewport_size({"width": width, "height": height})
    begin(page, server.url, login)
    page.screenshot(path=screenshots / f"everything-{width}-{count}.png")
    assert page.evaluate("document.querySelector('#concord').scrollWidth") <= width
    verdict = page.locator("#verdict").bounding_box()
    assert verdict["y"] + verdict["height"] <= height
    assert verdict["height"] <= (172 if width > 760 else 0.32 * height)
    if width > 760:
        reading = page.locator(".reading").bounding_box()
        assert reading["width"] * reading["height"] >= 0.45 * width * height


def test_fingers_have_room(phone: Any, server: Server, house: House, begin: Callable) -> None:
    login = house.project("asks-fingers", {"prompt": "Count!", "responses": FOUR}, pair(), **EVERYTHING)
    begin(phone, server.url, login)
    targets = ".work button:visible, .work .steps label:visible"
    for number in range(2):
        small = phone.locator(targets).evaluate_all(
            """found => found.map(one => [one.textContent, one.id, one.getBoundingClientRect()])
                 .filter(([, , box]) => box.height < 43.5 || box.width < 43.5)
                 .map(([text, id, box]) => [text, id, box.width, box.height])"""
        )
        assert small == []
        if number:
            break
        for text in shown(phone):
            card = phone.locator(".response").filter(has_text=text)
            card.locator(".ranks label").nth(RANKS[text] - 1).tap()
        phone.get_by_role("radio", name="clearly better").tap()
        for steps in phone.locator(".rate").all():
            steps.locator("label").first.tap()
        phone.locator("#rationale").fill("So.")
        phone.locator("#submit").tap()
        phone.locator("#prompt").get_by_text("Which city?").wait_for()


def test_line_ends_of_another_system_are_no_rewrite(page: Any, server: Server, house: House, begin: Callable) -> None:
    login = house.project("line-ends", pair(first="one\r\ntwo", second="three\r\nfour"), gold_rate=0.0, edit=True)
    begin(page, server.url, login)
    press(page, "4", "e")
    page.get_by_role("button", name="instead").click()
    assert page.locator(".writer .state").inner_text() == "Not changed yet"
    page.locator("#rewritten").press_sequentially("x")
    page.locator(".writer").get_by_text("Kept ✓").wait_for()
    page.keyboard.press("Backspace")
    page.locator(".writer").get_by_text("Not changed yet").wait_for()
