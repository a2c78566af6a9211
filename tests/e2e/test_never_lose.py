"""The rater's page loses nothing and waits for nothing: servers that die, networks that go, windows that differ."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from annotate.services.people import add_person
from annotate.services.projects import find_project
from tests.annotate.conftest import PASSWORD, Annotate, Server, Visitor
from tests.e2e.conftest import House, three_pairs

pytestmark = pytest.mark.browser

CHOSEN = "#scale label:has(:checked)"
# From the key to the frame that has another prompt in it.
STOPWATCH = """
window.waits = [];
addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  const began = event.timeStamp;
  const box = document.querySelector("#prompt");
  const watcher = new MutationObserver(() => {
    watcher.disconnect();
    requestAnimationFrame(() => setTimeout(() => window.waits.push(performance.now() - began)));
  });
  watcher.observe(box, { childList: true });
}, { capture: true });
"""


def sees(page: Any, prompt: str) -> None:
    page.locator("#prompt").get_by_text(prompt).wait_for()


def rate(page: Any, key: str) -> None:
    page.keyboard.press(key)
    page.keyboard.press("Enter")


def test_the_next_item_does_not_wait_for_the_server(
    page: Any, server: Server, house: House, pairs: str, begin: Callable
) -> None:
    with page.expect_response(lambda got: got.url.endswith("/next") and '"holding":[]' not in got.request.post_data):
        begin(page, server.url, pairs)  # the second item is fetched while the rater reads the first
    held: list[Any] = []
    page.route("**/answers", lambda route: held.append(route) if not held else route.continue_())
    page.keyboard.press("2")
    page.locator("#submit").dblclick()
    sees(page, "Second?")
    page.get_by_text("Saving…").wait_for()
    assert page.locator("#scale input:checked").count() == 0
    assert page.locator("#count").inner_text().startswith("0 of")  # nothing is counted that is not on the disk

    rate(page, "6")  # and one more: it waits in the outbox, and the page for the third item
    chosen = page.locator(CHOSEN).inner_text()
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.locator("#scale label").first.click(force=True)
    assert page.locator(CHOSEN).inner_text() == chosen  # what is on the screen is what is being saved
    assert page.locator("#count").inner_text().startswith("0 of")  # one at a time: the second waits for the first
    held[0].continue_()
    sees(page, "Third?")
    page.get_by_text("Saved ✓").wait_for()
    assert page.locator("#count").inner_text().startswith("2 of")
    assert [row["item"] for row in house.answers(pairs)] == ["i0", "i1"]


def test_an_old_response_does_not_turn_the_count_back(page: Any, server: Server, pairs: str, begin: Callable) -> None:
    late: list[Any] = []

    def keep_second(route: Any) -> None:
        if '"holding":[]' in route.request.post_data:
            route.continue_()
        else:
            late.append((route, route.fetch()))  # asked before the answer, and on its way for longer

    page.route("**/next", keep_second)
    begin(page, server.url, pairs)
    page.wait_for_timeout(500)
    rate(page, "2")
    sees(page, "Second?")
    page.get_by_text("Saved ✓").wait_for()
    for route, response in late:
        route.fulfill(response=response)
    page.wait_for_timeout(300)
    assert late and page.locator("#count").inner_text().startswith("1 of")
    rate(page, "2")
    sees(page, "Third?")
    page.unroute_all(behavior="ignoreErrors")


def test_how_long_a_rater_waits(page: Any, server: Server, house: House, begin: Callable) -> None:
    """From Enter to the next item on the screen, with a server that takes its time."""
    words = " ".join(["word"] * 300)
    items = [{"prompt": f"Item {number}?", "responses": [words, f"{words} more"]} for number in range(12)]
    login = house.project("waits", *items)

    def slowly(route: Any) -> None:
        page.wait_for_timeout(300)
        route.continue_()

    begin(page, server.url, login)
    page.wait_for_timeout(1000)
    page.route("**/answers", slowly)
    page.evaluate(STOPWATCH)
    for number in range(11):
        rate(page, "2")
        sees(page, f"Item {number + 1}?")
        page.get_by_text("Saved ✓").wait_for()
    waits = page.evaluate("window.waits")
    print(f"\nEnter to next item, ms: median {statistics.median(waits):.0f}, longest {max(waits):.0f}, of {len(waits)}")
    assert len(waits) == 11 and statistics.median(waits) < 250, waits


def test_a_draft_comes_back_after_a_reload_and_on_another_machine(
    page: Any, browser: Any, server: Server, pairs: str, begin: Callable
) -> None:
    begin(page, server.url, pairs)
    order = page.locator(".response .body").all_inner_texts()
    with page.expect_response("**/draft") as saved:
        page.keyboard.press("6")
    assert saved.value.json() == {"version": 1}
    chosen = page.locator(CHOSEN).inner_text()
    page.reload()
    sees(page, "First?")
    assert page.locator(".response .body").all_inner_texts() == order
    assert page.locator(CHOSEN).inner_text() == chosen

    context = browser.new_context()
    other = context.new_page()
    begin(other, server.url, pairs)
    assert other.locator(".response .body").all_inner_texts() == order
    assert other.locator(CHOSEN).inner_text() == chosen
    with other.expect_response("**/draft"):
        other.keyboard.press("1")

    page.keyboard.press("3")  # by now the other window knows better
    page.get_by_text("This item is open in another window, too").wait_for()
    page.get_by_role("link", name="Reload", exact=True).click()
    sees(page, "First?")
    assert page.locator(CHOSEN).inner_text().endswith("A much better")
    context.close()


def test_what_was_filled_in_just_before_leaving_is_kept(
    page: Any, browser: Any, server: Server, pairs: str, begin: Callable
) -> None:
    begin(page, server.url, pairs)
    page.keyboard.press("7")
    page.goto("about:blank")  # sooner than a draft is saved
    context = browser.new_context()
    other = context.new_page()
    begin(other, server.url, pairs)
    assert other.locator(CHOSEN).inner_text().endswith("B much better")
    context.close()


def test_a_server_killed_in_mid_answer_costs_nothing(page: Any, tmp_path: Path, begin: Callable) -> None:
    annotate = Annotate(tmp_path)
    house = House(annotate)
    login = house.project("killed", *three_pairs())
    with annotate.served() as running:
        begin(page, running.url, login)
        page.wait_for_timeout(500)

        def kill(route: Any) -> None:
            running.process.kill()
            running.process.wait()
            route.continue_()

        page.route("**/answers", kill, times=1)
        rate(page, "2")
        sees(page, "Second?")
        page.get_by_text("Not saved yet – trying again").wait_for()
        rate(page, "6")
    assert house.answers(login) == []
    with annotate.served(port=httpx.URL(running.url).port, api_only=True):
        sees(page, "Third?")
        page.get_by_text("Saved ✓").wait_for()
        assert page.locator("#banner").is_hidden()
        assert [(row["item"], row["revision"]) for row in house.answers(login)] == [("i0", 1), ("i1", 1)]
        assert page.locator("#count").inner_text().startswith("2 of")


def test_a_receipt_that_got_lost_is_asked_for_again(
    page: Any, server: Server, house: House, pairs: str, begin: Callable
) -> None:
    begin(page, server.url, pairs)

    def lose(route: Any) -> None:
        assert route.fetch().status == 200
        route.abort()

    page.route("**/answers", lose, times=1)
    rate(page, "2")
    page.get_by_text("Not saved yet").wait_for()
    page.get_by_text("Saved ✓").wait_for()
    assert [row["item"] for row in house.answers(pairs)] == ["i0"]


def test_an_answer_that_is_not_sent_survives_a_reload(
    page: Any, server: Server, house: House, pairs: str, begin: Callable
) -> None:
    begin(page, server.url, pairs)
    page.route("**/answers", lambda route: route.fulfill(status=503))
    rate(page, "2")
    page.get_by_text("Not saved yet").wait_for()
    page.reload()
    page.get_by_text("Not saved yet").wait_for()
    page.unroute("**/answers")
    sees(page, "Second?")
    assert page.locator("#count").inner_text().startswith("1 of")
    assert [row["item"] for row in house.answers(pairs)] == ["i0"]
    assert page.evaluate("Object.keys(localStorage).filter((name) => name.includes('unsent'))") == []


def test_the_network_goes_and_comes_back(
    page: Any, server: Server, house: House, pairs: str, begin: Callable, screenshots: Path
) -> None:
    begin(page, server.url, pairs)
    page.wait_for_timeout(500)
    page.context.set_offline(True)
    rate(page, "2")
    sees(page, "Second?")
    page.get_by_text("Not saved yet – trying again").wait_for()
    page.keyboard.press("3")
    page.keyboard.press("U")
    page.get_by_text("nothing to undo").wait_for()
    page.screenshot(path=screenshots / "offline.png")
    page.context.set_offline(False)
    page.get_by_text("Saved ✓").wait_for()
    assert page.locator("#banner").is_hidden()
    assert page.locator("#scale input:checked").count() == 1
    assert [row["item"] for row in house.answers(pairs)] == ["i0"]


def test_a_session_that_ends_costs_no_answer(
    page: Any, server: Server, house: House, pairs: str, begin: Callable, sign_in: Callable
) -> None:
    begin(page, server.url, pairs)
    page.wait_for_timeout(500)
    page.context.clear_cookies()
    rate(page, "2")
    page.get_by_text("You are signed out. What you have done is kept").wait_for()
    page.keyboard.press("6")
    page.get_by_role("link", name="sign in again").click()
    page.get_by_label("Login").wait_for()
    sign_in(page, page.url, pairs)
    sees(page, "Second?")
    assert page.locator(CHOSEN).inner_text().endswith("B clearly")
    assert page.locator("#count").inner_text().startswith("1 of")

    page.context.clear_cookies()  # or the rater signs in again in another tab: this one goes on by itself
    rate(page, "6")
    page.get_by_text("You are signed out").wait_for()
    other = page.context.new_page()
    sign_in(other, server.url, pairs)
    sees(other, "Third?")
    other.close()
    page.evaluate("dispatchEvent(new Event('focus'))")
    page.get_by_text("Saved ✓").wait_for()
    assert [row["item"] for row in house.answers(pairs)] == ["i0", "i1"]


def test_somebody_else_signs_in_meanwhile(
    page: Any, server: Server, house: House, pairs: str, begin: Callable, sign_in: Callable
) -> None:
    begin(page, server.url, pairs)
    page.keyboard.press("2")
    other = page.context.new_page()
    sign_in(other, server.url + "/login", house.project("somebody-else", *three_pairs()))
    other.locator("#concord[data-view=work]").wait_for()
    page.keyboard.press("Enter")
    page.get_by_text("This browser is signed in as somebody-else by now").wait_for()
    assert house.answers(pairs) == house.answers("somebody-else") == []
    other.close()


def test_an_answer_that_is_refused_comes_back_with_the_reason(
    page: Any, server: Server, house: House, pairs: str, begin: Callable, screenshots: Path
) -> None:
    begin(page, server.url, pairs)
    page.keyboard.press("2")
    script = Visitor(server.url, pairs, "correct horse battery")  # the same rater, elsewhere
    assert script.submit(script.next()["task"]["assignment"], [1, 1], strength=0).status_code == 200
    page.keyboard.press("Enter")
    page.get_by_text("Not saved. You have answered this item, and that answer stands.").wait_for()
    sees(page, "First?")
    assert page.locator("#scale input:checked").count() == 1
    page.screenshot(path=screenshots / "refused.png")
    page.get_by_role("link", name="Go on without it").click()
    sees(page, "Second?")
    assert len(house.answers(pairs)) == 1


def test_undo_changes_the_answer_that_is_stored(
    page: Any, server: Server, house: House, pairs: str, begin: Callable, screenshots: Path
) -> None:
    begin(page, server.url, pairs)
    rate(page, "2")
    page.get_by_text("Saved ✓").wait_for()
    sees(page, "Second?")
    page.keyboard.press("5")
    page.keyboard.press("u")
    sees(page, "First?")
    assert page.locator(CHOSEN).inner_text().endswith("A clearly")
    page.screenshot(path=screenshots / "undo.png")
    page.keyboard.press("Escape")  # thinks better of it
    sees(page, "Second?")
    assert page.locator(CHOSEN).inner_text().endswith("B slightly")

    page.get_by_role("button", name="Undo").click()
    sees(page, "First?")
    rate(page, "4")
    sees(page, "Second?")
    page.get_by_text("Saved ✓").wait_for()
    assert page.locator(CHOSEN).inner_text().endswith("B slightly")  # as it was left
    assert page.locator("#count").inner_text().startswith("1 of")
    given = [(row["revision"], row["ranks"]) for row in house.answers(pairs)]
    assert [revision for revision, _ in given] == [1, 2] and given[1][1] == [1, 1] != given[0][1]

    page.keyboard.press("Enter")
    sees(page, "Third?")
    rate(page, "1")
    page.get_by_role("heading", name="All done").wait_for()
    page.keyboard.press("u")  # the very last one, too
    sees(page, "Third?")
    rate(page, "7")
    page.get_by_role("heading", name="All done").wait_for()
    assert [row["revision"] for row in house.answers(pairs)] == [1, 2, 1, 1, 2]


def test_an_undo_that_comes_too_late_says_so(page: Any, server: Server, pairs: str, begin: Callable) -> None:
    begin(page, server.url, pairs)
    page.keyboard.press("u")
    page.get_by_text("There is nothing to undo.").wait_for()
    rate(page, "2")
    page.get_by_text("Saved ✓").wait_for()
    sees(page, "Second?")  # between two items no key means anything
    late = {"rule": "undo-too-late", "detail": "An answer can be changed for 15 minutes only."}
    page.route("**/reopen", lambda route: route.fulfill(status=409, json=late))
    page.keyboard.press("u")
    page.get_by_text("Not undone. An answer can be changed for 15 minutes only.").wait_for()
    sees(page, "Second?")
    assert page.get_by_role("button", name="Undo").count() == 0


def test_skip_gives_a_reason(
    page: Any, server: Server, house: House, pairs: str, begin: Callable, screenshots: Path
) -> None:
    begin(page, server.url, pairs)
    page.keyboard.press("s")
    page.keyboard.press("2")
    page.screenshot(path=screenshots / "skip.png")
    page.keyboard.press("Escape")
    sees(page, "First?")
    page.keyboard.press("s")
    page.keyboard.press("Enter")  # not without a reason
    assert page.locator("#skip[open]").count() == 1
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    sees(page, "Second?")
    page.get_by_text("Skipped ✓").wait_for()

    page.get_by_role("button", name="Skip").click()
    page.get_by_label("Another reason").check()
    page.get_by_label("A few words").fill("5 of them, all the same")
    page.get_by_role("button", name="Skip Enter").click()
    sees(page, "Third?")
    page.get_by_text("Skipped ✓").wait_for()
    query = "SELECT reason, text FROM skips JOIN members ON members.id = member_id WHERE rater = ? ORDER BY skips.id"
    assert house.run(query, pairs) == [("broken", None), ("other", "5 of them, all the same")]
    rate(page, "1")
    page.get_by_role("heading", name="All done").wait_for()
    assert [row["item"] for row in house.answers(pairs)] == ["i2"]


def test_flags_go_along_with_the_answer(
    page: Any, server: Server, house: House, pairs: str, begin: Callable, screenshots: Path
) -> None:
    begin(page, server.url, pairs)
    page.keyboard.press("f")
    page.keyboard.press("1")
    page.keyboard.press("3")
    page.screenshot(path=screenshots / "flag.png")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Flag (2)").wait_for()
    with page.expect_response("**/draft"):
        pass
    page.reload()
    page.get_by_role("button", name="Flag (2)").click()
    assert page.get_by_role("checkbox", name="Unsafe or harmful").is_checked()
    page.get_by_role("button", name="Done").click()
    rate(page, "4")
    page.get_by_text("Saved ✓").wait_for()
    assert page.get_by_role("button", name="Flag", exact=False).inner_text().startswith("Flag F")
    assert house.answers(pairs)[0]["flags"] == ["unsafe", "pii"]


def test_a_rater_who_reads_for_long_keeps_the_item(page: Any, server: Server, pairs: str, begin: Callable) -> None:
    renewed: list[str] = []
    page.on("request", lambda request: renewed.append(request.url) if request.url.endswith("/renew") else None)
    page.clock.install()
    begin(page, server.url, pairs)
    page.clock.run_for(6 * 60_000)
    assert renewed == []  # nobody has moved: the rater may be gone
    page.keyboard.press("PageDown")
    with page.expect_response("**/renew") as lengthened:
        while not renewed:  # and no further, or the page would lose patience with a slow server
            page.clock.run_for(1000)
    assert lengthened.value.json()["lease_seconds"] > 600
    page.clock.run_for(60_000)
    assert len(renewed) == 1


def test_a_login_that_ends_in_mid_answer_loses_no_draft(
    page: Any, server: Server, house: House, pairs: str, begin: Callable, sign_in: Callable
) -> None:
    begin(page, server.url, pairs)
    page.context.clear_cookies()
    page.keyboard.press("6")  # the draft is what hears of it first
    page.get_by_text("You are signed out. What you have done is kept").wait_for()
    page.get_by_role("link", name="Sign in again").click()
    page.get_by_label("Login").wait_for()
    sign_in(page, page.url, pairs)
    sees(page, "First?")
    assert page.locator(CHOSEN).inner_text().endswith("B clearly")
    page.keyboard.press("Enter")
    page.get_by_text("Saved ✓").wait_for()
    assert [row["item"] for row in house.answers(pairs)] == ["i0"]


def test_three_tabs_at_once(page: Any, server: Server, house: House, pairs: str, begin: Callable) -> None:
    """The same item in three tabs is answered once; each other tab says so, and goes on."""
    tabs = [page, page.context.new_page(), page.context.new_page()]
    begin(page, server.url, pairs)
    for tab in tabs[1:]:
        tab.goto(server.url + "/rate/")
        sees(tab, "First?")
    for tab, key in zip(tabs, "246", strict=True):
        tab.keyboard.press(key)
    for tab in tabs:
        tab.keyboard.press("Enter")
    refused = "Not saved. You have answered this item, and that answer stands."
    for tab in tabs:
        tab.get_by_text("Saved ✓").or_(tab.get_by_text(refused)).wait_for()
    late = [tab for tab in tabs if tab.get_by_text(refused).count()]
    assert len(late) == 2, "whichever comes first is saved"
    for tab in late:
        sees(tab, "First?")
        assert tab.locator("#scale input:checked").count() == 1
        tab.get_by_role("link", name="Go on without it").click()
        sees(tab, "Second?")
    given = house.answers(pairs)
    assert [(row["item"], row["revision"]) for row in given] == [("i0", 1)]
    middle = tabs[1] not in late
    assert given[0]["strength"] == 0 if middle else given[0]["strength"] in (-2, 2)
    for tab in tabs[1:]:
        tab.close()


def test_the_back_button_loses_nothing(page: Any, server: Server, house: House, pairs: str, begin: Callable) -> None:
    begin(page, server.url, pairs)
    rate(page, "2")
    sees(page, "Second?")
    page.get_by_text("Saved ✓").wait_for()
    page.keyboard.press("6")
    page.goto(server.url + "/account")
    page.go_back()
    sees(page, "Second?")
    assert page.locator(CHOSEN).inner_text().endswith("B clearly")
    assert page.locator("#count").inner_text().startswith("1 of")
    page.keyboard.press("Enter")
    sees(page, "Third?")
    page.get_by_text("Saved ✓").wait_for()
    assert [row["item"] for row in house.answers(pairs)] == ["i0", "i1"]


def test_a_double_click_and_a_held_key_submit_once(
    page: Any, server: Server, house: House, pairs: str, begin: Callable
) -> None:
    begin(page, server.url, pairs)
    page.get_by_role("radio", name="A clearly").click()
    page.locator("#submit").dblclick()
    sees(page, "Second?")
    page.get_by_text("Saved ✓").wait_for()
    page.keyboard.press("4")
    for _ in range(4):
        page.keyboard.down("Enter")  # a key that is held repeats
    page.keyboard.up("Enter")
    sees(page, "Third?")
    page.locator("#count").get_by_text("2 of").wait_for()
    assert page.locator("#scale input:checked").count() == 0
    assert [row["item"] for row in house.answers(pairs)] == ["i0", "i1"]


def test_two_raters_and_one_place_for_an_answer(
    page: Any, browser: Any, server: Server, house: House, begin: Callable, sign_in: Callable
) -> None:
    """Two are never given the same place; the one who comes too late is told, and both answers are kept."""
    first = house.project("two-raters", {"prompt": "Only one?", "responses": ["one", "two"]})
    with house.database.write() as session:
        project = find_project(session, first)
        add_person(session, project, "second-rater", role="rater", name=None, password=PASSWORD)
    begin(page, server.url, first)
    sees(page, "Only one?")
    context = browser.new_context()
    other = context.new_page()
    sign_in(other, server.url, "second-rater")
    other.get_by_role("heading", name="Nothing here yet").wait_for()

    mine = "item_id IN (SELECT id FROM items WHERE prompt LIKE '%Only one?%')"
    house.run(f"UPDATE slots SET leased_until = 1.0 WHERE {mine}")  # the first one has gone to lunch
    other.locator("#look-again").click()
    sees(other, "Only one?")
    rate(other, "2")
    other.get_by_role("heading", name="All done").wait_for()
    rate(page, "6")
    page.get_by_role("heading", name="All done").wait_for()
    page.locator("#done-sum").wait_for()
    kinds = house.run(f"SELECT kind FROM answers WHERE {mine}")
    assert sorted(kinds) == [("rated",), ("surplus",)]
    context.close()


def test_an_answer_on_a_phone(browser: Any, server: Server, house: House, pairs: str, begin: Callable) -> None:
    """By touch alone, on a small screen: nothing is hidden, nothing is wider than the screen."""
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    phone = context.new_page()
    begin(phone, server.url, pairs)
    for prompt in ("First?", "Second?", "Third?"):
        sees(phone, prompt)
        assert phone.locator(".response").last.bounding_box()["x"] < 20  # one below the other
        phone.locator("#scale label").nth(5).tap()
        phone.locator("#submit").tap()
    phone.get_by_role("heading", name="All done").wait_for()
    assert len(house.answers(pairs)) == 3
    assert phone.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()
