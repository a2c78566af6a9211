"""What stands in front of the work: consent, guidelines, content warnings, practice; and where the way ends."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.annotate.conftest import Annotate, Server
from tests.e2e.conftest import House, three_pairs

pytestmark = pytest.mark.browser

CONSENT = "You take part in a **study**. <script>document.title='owned'</script>"
GOLD = {"responses": ["right", "wrong"], "gold": [1, 2]}


def pick(page: Any, text: str) -> None:
    """Say that the response with this text is clearly better."""
    letter = page.locator(".response").filter(has_text=text).locator(".letter").inner_text()
    page.keyboard.press("2" if letter == "A" else "6")


def test_consent_comes_before_all_else(
    page: Any, server: Server, house: House, sign_in: Callable, screenshots: Path
) -> None:
    warnings = {"violence": "Describes violence", "medical": "Describes wounds and operations"}
    items = [
        {"prompt": "A wound?", "responses": ["red", "blue"], "tags": ["medical"], "priority": 2.0},
        {"prompt": "A fight?", "responses": ["red", "blue"], "tags": ["violence"], "priority": 1.0},
        *three_pairs(),
    ]
    login = house.project("consents", *items, guidelines="Be *fair*.", consent=CONSENT, warnings=warnings)
    sign_in(page, server.url, login)
    page.get_by_role("heading", name="Before you begin").wait_for()
    assert page.locator("#consent-text strong").inner_text() == "study" and "owned" not in page.title()
    assert page.get_by_role("button", name="I don't agree, sign out").is_visible()
    page.get_by_label("Describes violence").check()
    page.locator("#consent-warnings").get_by_text("Saved ✓").wait_for()
    page.screenshot(path=screenshots / "consent.png")
    page.reload()  # nothing is agreed to yet
    page.get_by_role("heading", name="Before you begin").wait_for()
    assert page.get_by_label("Describes violence").is_checked()
    page.get_by_role("button", name="I agree").click()
    page.get_by_role("button", name="I have read them, start").wait_for()
    page.screenshot(path=screenshots / "guidelines.png")
    page.get_by_role("button", name="I have read them, start").click()

    page.locator("#warnings").get_by_text("Describes wounds and operations").wait_for()
    assert page.locator("#responses").is_hidden() and page.locator("#prompt").is_visible()
    page.screenshot(path=screenshots / "covered.png")
    page.keyboard.press("2")
    assert page.locator("#scale input:checked").count() == 0
    page.keyboard.press("Enter")
    page.locator("#responses").wait_for()
    page.keyboard.press("2")

    page.get_by_role("button", name="Guidelines").click()  # enough of that, too
    page.locator("#guidelines-warnings").get_by_label("Describes wounds").check()
    page.locator("#guidelines-warnings").get_by_text("Saved ✓").wait_for()
    page.get_by_role("button", name="Close").click()
    page.locator("#prompt").get_by_text("First?").wait_for()
    assert page.locator("#warnings").is_hidden()
    for prompt in ("First?", "Second?", "Third?"):
        page.locator("#prompt").get_by_text(prompt).wait_for()
        page.keyboard.press("2")
        page.keyboard.press("Enter")
    page.get_by_role("heading", name="All done").wait_for()
    assert [row["item"] for row in house.answers(login)] == ["i2", "i3", "i4"]


def test_new_guidelines_come_in_between_and_cost_no_answer(
    page: Any, server: Server, house: House, pairs: str, begin: Callable
) -> None:
    begin(page, server.url, pairs)
    page.keyboard.press("2")
    house.run(
        "INSERT INTO guidelines (project_id, version, text) SELECT id, 1, 'Look **closely**.' FROM projects"
        " WHERE name = ?",
        pairs,
    )
    page.keyboard.press("Enter")
    page.get_by_text("Look closely.").wait_for()
    page.get_by_role("button", name="I have read them, start").click()
    page.locator("#prompt").get_by_text("Second?").wait_for()
    page.get_by_text("Saved ✓").wait_for()
    for prompt in ("Second?", "Third?"):
        page.locator("#prompt").get_by_text(prompt).wait_for()
        page.keyboard.press("2")
        page.keyboard.press("Enter")
    page.get_by_role("heading", name="All done").wait_for()
    query = "SELECT answers.guideline FROM answers JOIN members ON members.id = member_id WHERE rater = ? ORDER BY 1"
    assert house.run(query, pairs) == [(None,), (1,), (1,)]


def test_practice_says_what_is_right(
    page: Any, server: Server, house: House, begin: Callable, screenshots: Path
) -> None:
    practice = [{"prompt": f"Practice {number}?", **GOLD} for number in range(4)]
    login = house.project("practises", *practice, *three_pairs(), qualify=2, gold_rate=0.0)
    begin(page, server.url, login)
    page.get_by_text("Practice: you will see the right answer").wait_for()
    pick(page, "wrong")
    page.keyboard.press("Enter")
    page.get_by_text("Not quite.").wait_for()
    page.get_by_text("You have passed 0 of 2.").wait_for()
    assert page.locator(".response").filter(has_text="right").locator(".right").inner_text() == "best"
    page.screenshot(path=screenshots / "practice.png")
    for passed in (1, 2):
        page.keyboard.press("Enter")
        page.locator("#feedback").wait_for(state="hidden")
        pick(page, "right")
        page.keyboard.press("Enter")
        page.get_by_text("Right ✓").wait_for()
        assert ("You have passed 1 of 2." if passed == 1 else "now the real items") in page.inner_text("#feedback")
    page.keyboard.press("Enter")
    page.locator("#prompt").get_by_text("First?").wait_for()
    assert page.locator("#practice").is_hidden()
    assert len(house.answers(login)) == 3


def test_no_more_practice_and_a_closed_project(
    page: Any, server: Server, house: House, begin: Callable, sign_in: Callable
) -> None:
    login = house.project("fails", {"prompt": "Practice?", **GOLD}, *three_pairs(), qualify=1)
    begin(page, server.url, login)
    pick(page, "wrong")
    page.keyboard.press("Enter")
    page.get_by_text("Not quite.").wait_for()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="No more practice").wait_for()
    assert "will be in touch" in page.inner_text("#done-text")
    house.run("UPDATE projects SET closed_at = 1.0 WHERE name = ?", login)
    page.get_by_role("button", name="Look again").click()
    page.get_by_role("heading", name="This project is closed").wait_for()


def test_a_reviewer_comes_to_the_page_for_reviewers(
    page: Any, server: Server, shared_annotate: Annotate, house: House, pairs: str, sign_in: Callable
) -> None:
    shared_annotate.person(pairs, "rita", "--role", "reviewer")
    sign_in(page, server.url, "rita")
    page.wait_for_url("**/review/**")
    page.get_by_text(pairs).first.wait_for()
