"""What a rater does while something slow is under way: nothing is lost, and nothing goes where it does not belong."""

from collections.abc import Callable
from typing import Any

import pytest

from annotate.services.projects import find_project, new_guidelines
from tests.annotate.conftest import Server
from tests.e2e.conftest import House, three_pairs

pytestmark = pytest.mark.browser


def problem(rule: str, detail: str, status: int) -> dict[str, Any]:
    return {"status": status, "json": {"rule": rule, "detail": detail}, "content_type": "application/problem+json"}


def sees(page: Any, prompt: str) -> None:
    page.locator("#prompt").get_by_text(prompt).wait_for()


def fetches(page: Any, count: int) -> Callable[[], None]:
    """Wait, when called, until the page has been given so many items from now on."""
    given: list[Any] = []
    page.on("requestfinished", lambda request: given.append(request) if request.url.endswith("/next") else None)

    def wait() -> None:
        while len(given) < count:
            page.wait_for_timeout(50)

    return wait


def test_a_question_that_fails_late_stays_with_its_item(
    page: Any, server: Server, house: House, pairs: str, begin: Callable
) -> None:
    begin(page, server.url, pairs)
    held: list[Any] = []
    page.route("**/questions", lambda route: held.append(route) if not held else route.continue_())
    page.keyboard.press("q")
    page.locator("#question-text").fill("Is the first one true?")
    with page.expect_request("**/questions"):
        page.keyboard.press("Control+Enter")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    sees(page, "Second?")
    page.keyboard.press("q")
    page.locator("#question-text").fill("Is the second one true?")
    held[0].fulfill(**problem("failed", "The server failed.", 503))
    page.wait_for_timeout(300)
    with page.expect_response(lambda response: "second" in (response.request.post_data or "")):
        page.keyboard.press("Control+Enter")
    page.locator("#question-error").get_by_text("Not sent.").wait_for()
    assert page.locator("#question-text").input_value() == "Is the first one true?"
    with page.expect_response(lambda response: "first" in (response.request.post_data or "")):
        page.keyboard.press("Control+Enter")
    asked = house.run(
        "SELECT items.key, questions.text FROM questions JOIN items ON items.id = item_id"
        " JOIN members ON members.id = member_id WHERE rater = ? ORDER BY items.key",
        pairs,
    )
    assert asked == [("i0", "Is the first one true?"), ("i1", "Is the second one true?")]


def test_guidelines_that_could_not_be_confirmed_leave_the_item_on_the_screen(
    page: Any, server: Server, house: House, sign_in: Callable, begin: Callable
) -> None:
    login = house.project("unconfirmed", *three_pairs(), gold_rate=0.0, guidelines="Be fair.")
    second_is_here = fetches(page, 2)
    sign_in(page, server.url, login)
    page.get_by_role("button", name="I have read them, start").click()
    sees(page, "First?")
    second_is_here()
    with house.database.write() as session:
        new_guidelines(session, find_project(session, login).id, "Be fairer.", by=None)
    page.keyboard.press("2")
    page.route("**/guidelines/read", lambda route: route.abort())
    page.keyboard.press("Enter")
    with page.expect_event("requestfailed"):
        page.get_by_role("button", name="I have read them, start").click()
    page.unroute("**/guidelines/read")
    sees(page, "Second?")
    page.keyboard.press("6")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="I have read them, start").click()  # asked again
    sees(page, "Third?")
    page.get_by_text("Saved ✓").wait_for()
    assert [row["item"] for row in house.answers(login)] == ["i0", "i1"]


def test_two_ticks_at_once_are_both_kept(page: Any, server: Server, house: House, begin: Callable) -> None:
    warnings = {"violence": "Describes violence", "medical": "Describes wounds"}
    login = house.project("two-ticks", *three_pairs(), gold_rate=0.0, warnings=warnings)
    begin(page, server.url, login)
    page.keyboard.press("g")
    held: list[Any] = []
    page.route("**/opt-out", lambda route: held.append(route) if not held else route.continue_())
    page.locator("#guidelines").get_by_label("Describes violence").check()
    page.locator("#guidelines").get_by_label("Describes wounds").check()
    page.wait_for_timeout(300)
    held[0].continue_()
    page.wait_for_timeout(700)
    page.reload()
    page.locator("#concord[data-view=work]").wait_for()
    page.keyboard.press("g")
    ticks = page.locator("#guidelines-warnings input")
    ticks.first.wait_for()
    assert [tick.is_checked() for tick in ticks.all()] == [True, True]


FRENCH = """([where, digit, sign]) => document.querySelector(where).dispatchEvent(new KeyboardEvent("keydown",
  {key: sign, code: `Digit${digit}`, bubbles: true, cancelable: true}))"""


def test_digits_of_a_french_keyboard_choose_in_dialogs_too(
    page: Any, server: Server, house: House, pairs: str, begin: Callable
) -> None:
    begin(page, server.url, pairs)
    page.evaluate(FRENCH, ["#prompt", 2, "é"])
    assert page.locator("#scale input").nth(1).is_checked()
    page.keyboard.press("s")
    page.evaluate(FRENCH, ["#skip input", 2, "é"])
    assert page.locator("#skip input").nth(1).is_checked()


def test_an_answer_on_its_way_does_not_come_again(
    page: Any, server: Server, house: House, pairs: str, begin: Callable
) -> None:
    second_is_here = fetches(page, 2)
    begin(page, server.url, pairs)
    second_is_here()  # so that the receipt of the first answer brings the third
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    sees(page, "Second?")
    page.get_by_text("Saved ✓").wait_for()
    page.route("**/answers", lambda route: route.fulfill(**problem("failed", "The server failed.", 503)))
    for prompt in ("Second?", "Third?"):
        sees(page, prompt)
        page.keyboard.press("3")
        page.keyboard.press("Enter")
    page.get_by_text("Not saved yet").wait_for()
    page.locator("#mine-open").click()
    page.get_by_role("button", name="Change the answer to: First?").click()
    sees(page, "First?")
    page.keyboard.press("Escape")
    page.wait_for_timeout(800)
    assert page.locator("#prompt").inner_text() == "First?", "what is being sent is asked about again"
    page.unroute("**/answers")
    page.evaluate("window.dispatchEvent(new Event('online'))")
    page.get_by_role("heading", name="All done").wait_for()
    assert [row["item"] for row in house.answers(pairs)] == ["i0", "i1", "i2"]
