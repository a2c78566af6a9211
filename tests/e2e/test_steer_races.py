"""An owner who is quick, or whose connection or login is not what it was: nothing twice, nothing typed is lost."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.annotate.conftest import Server
from tests.e2e.conftest import House, three_pairs
from tests.e2e.test_steer import Steered

pytestmark = pytest.mark.browser
SLOW = 400  # ms that the server takes here, so that a double click comes before its answer


@pytest.fixture
def steered(server: Server, house: House, request: pytest.FixtureRequest) -> Callable[..., Steered]:
    name = re.sub(r"\W+", "-", request.node.name.removeprefix("test_"))[:40]
    return lambda items, **settings: Steered(server, house, name, items, **settings)


def slowly(page: Any, address: str) -> None:
    """Let what is posted there take a while."""

    def wait(route: Any) -> None:
        page.wait_for_timeout(SLOW)
        route.continue_()

    page.route(address, wait)


def test_a_double_click_makes_one_of_it(
    page: Any, house: House, server: Server, steered: Callable, sign_in: Callable
) -> None:
    place = steered(three_pairs())
    sign_in(page, server.url, place.owner)
    page.get_by_role("link", name=place.name, exact=True).wait_for()
    slowly(page, f"**/projects/{place.id}/items")
    page.goto(place.url("gold"))
    page.get_by_label("Prompt (Markdown)").fill("Which?")
    page.get_by_label("Response A").fill("right")
    page.get_by_label("Response B").fill("wrong")
    page.get_by_role("button", name="Add it").dblclick()
    page.locator("td .excerpt").get_by_text("Which?").first.wait_for()
    page.wait_for_timeout(2 * SLOW)
    ((gold,),) = house.run("SELECT count(*) FROM items WHERE project_id = ? AND gold IS NOT NULL", place.id)
    slowly(page, "**/guidelines")
    page.goto(place.url("settings"))
    page.get_by_label("Guidelines (Markdown)", exact=True).fill("Be fair.")
    page.get_by_role("button", name="Put the new version in force").dblclick()
    page.get_by_text("Version 1 is in force.").or_(page.get_by_text("Version 2 is in force.")).wait_for()
    page.wait_for_timeout(2 * SLOW)
    ((versions,),) = house.run("SELECT count(*) FROM guidelines WHERE project_id = ?", place.id)
    slowly(page, "**/invitations")
    page.goto(place.url("people"))
    page.get_by_role("button", name="Make a link").dblclick()
    page.get_by_role("dialog").first.wait_for()
    page.wait_for_timeout(2 * SLOW)
    assert (gold, versions, page.get_by_role("dialog").count()) == (1, 1, 1)


def test_a_reply_that_is_being_written_outlives_the_login(
    page: Any, server: Server, steered: Callable, sign_in: Callable
) -> None:
    place = steered(three_pairs())
    rater = server.visitor(place.raters[0])
    task = rater.next()["task"]["assignment"]
    assert rater.http.post(f"{rater.project}/questions", json={"assignment": task, "text": "Why?"}).status_code == 201
    sign_in(page, server.url, place.owner)
    page.get_by_role("link", name=place.name, exact=True).wait_for()
    page.clock.install()
    page.goto(place.url("questions"))
    page.get_by_label("Reply").fill("Because it is so.")
    page.context.clear_cookies()
    page.clock.run_for(16000)
    page.get_by_role("link", name="Sign in").wait_for()
    assert page.get_by_label("Reply").input_value() == "Because it is so."
    page.clock.run_for(60000)
    assert page.get_by_role("link", name="Sign in").count() == 1
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Sign in").click()
    sign_in(opened.value, server.url, place.owner)
    opened.value.get_by_role("link", name=place.name, exact=True).wait_for()
    page.clock.run_for(16000)
    page.get_by_role("link", name="Sign in").wait_for(state="detached")
    page.get_by_role("button", name="Send").click()
    page.locator("blockquote").get_by_text("Because it is so.").wait_for()


def test_more_items_can_be_asked_for_again(page: Any, server: Server, steered: Callable, sign_in: Callable) -> None:
    place = steered([{"prompt": f"Prompt {number}?", "responses": ["one", "two"]} for number in range(60)])
    sign_in(page, server.url, place.owner)
    page.get_by_role("link", name=place.name, exact=True).wait_for()
    page.goto(place.url("items") + "?all=1")
    page.get_by_text("Prompt 0?").wait_for()
    page.route(re.compile("/items.after="), lambda route: route.abort())
    page.get_by_role("button", name="Show more").click()
    page.get_by_text("The server can't be reached.").wait_for()
    page.unroute(re.compile("/items.after="))
    page.get_by_role("button", name="Show more").click()
    page.get_by_text("Prompt 59?").wait_for()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Items"


def test_a_list_of_people_keeps_the_focus_and_the_truth(
    page: Any, house: House, server: Server, steered: Callable, sign_in: Callable
) -> None:
    place = steered(three_pairs(), skills=["law", "maths"])
    sign_in(page, place.url("people"), place.owner)
    page.get_by_role("button", name="Answers").focus()
    page.keyboard.press("Enter")
    page.locator("th[aria-sort=descending]").get_by_text("Answers").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Answers"
    part = page.get_by_label(f"Part of {place.raters[0]}")
    part.select_option("reviewer")
    page.get_by_text("Saved ✓").wait_for()
    assert part.input_value() == "reviewer"
    assert house.run("SELECT role FROM members WHERE rater = ?", place.raters[0]) == [("reviewer",)]

    house.run("UPDATE members SET version = version + 1 WHERE rater = ?", place.raters[1])  # meanwhile, elsewhere
    part = page.get_by_label(f"Part of {place.raters[1]}")
    part.select_option("owner")
    page.get_by_role("alert").get_by_text("Somebody").or_(page.locator(".alert", has_text="Somebody")).first.wait_for()
    assert part.input_value() == "rater"

    page.get_by_role("link", name=place.raters[2], exact=True).click()
    skills = page.locator(".actions input")
    skills.first.wait_for()
    page.evaluate("document.querySelectorAll('.actions input').forEach((box) => box.click())")  # the second is refused
    page.locator(".actions .alert", has_text="Somebody").wait_for()
    stored = house.run("SELECT skills FROM members WHERE rater = ?", place.raters[2])
    ticked = [box.is_checked() for box in skills.all()]
    assert ticked == [name in stored[0][0] for name in ("law", "maths")] and sum(ticked) == 1


def test_a_look_at_a_file_that_ends_late_is_not_about_the_file_that_was_chosen_since(
    page: Any, server: Server, steered: Callable, sign_in: Callable, tmp_path: Path
) -> None:
    right, wrong = tmp_path / "right.jsonl", tmp_path / "wrong.jsonl"
    right.write_text(json.dumps({"id": "q1", **three_pairs()[0]}))
    wrong.write_text("{")
    sign_in(page, server.url, steered(three_pairs()).owner)
    page.get_by_role("link", name="New project").click()
    held: list[Any] = []
    page.route("**/projects/preview", lambda route: route.continue_() if held else held.append(route))
    with page.expect_request("**/projects/preview"):
        page.locator("input[type=file]").set_input_files(wrong)
    page.locator("input[type=file]").set_input_files(right)
    page.get_by_text("Items: 1. No mistake found.").wait_for()
    with page.expect_response("**/projects/preview"):
        held[0].continue_()
    page.wait_for_timeout(200)
    assert page.get_by_text("Items: 1. No mistake found.").is_visible()
