"""A rater's own things: answers, earnings, questions; guidelines that change; and time that only counts at work."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from annotate.services.people import add_person
from annotate.services.projects import find_project
from tests.annotate.conftest import PASSWORD, Server
from tests.e2e.conftest import House, three_pairs

pytestmark = pytest.mark.browser

PAY = {"amount": 36.0, "currency": "EUR", "per": "hour"}
SECONDS = (
    "SELECT seconds FROM answers JOIN members ON members.id = member_id WHERE rater = ?"
    " ORDER BY answers.id DESC LIMIT 1"
)

# How many kinds of signs of life the page has seen, whatever it made of them.
COUNT_SIGNS = """() => {
  const seen = new Set();
  window.signs = 0;
  for (const kind of ["keydown", "pointermove", "wheel", "touchstart"])
    addEventListener(kind, () => { seen.add(kind); window.signs = seen.size; }, { passive: true });
}"""


@pytest.fixture
def paid(house: House, request: pytest.FixtureRequest) -> str:
    """The login of a rater who is paid one cent a second, in a project of three pairs."""
    login = re.sub(r"\W+", ".", request.node.name)[:60]
    return house.project(login, *three_pairs(), gold_rate=0.0, pay=PAY)


def answer(page: Any, key: str, prompt: str) -> None:
    page.locator("#prompt").get_by_text(prompt).wait_for()
    page.keyboard.press(key)
    page.keyboard.press("Enter")


def test_my_answers_are_listed_and_changed(
    page: Any, server: Server, house: House, paid: str, begin: Callable, screenshots: Path
) -> None:
    begin(page, server.url, paid)
    answer(page, "2", "First?")
    answer(page, "4", "Second?")
    page.locator("#count").get_by_text("2 of 3").wait_for()
    page.keyboard.press("5")
    page.keyboard.press("h")
    page.locator("#mine-list li").nth(1).wait_for()
    listed = page.locator("#mine-list li").all_inner_texts()
    assert "Second?" in listed[0] and "Same" in listed[0] and "First?" in listed[1] and "A clearly" in listed[1]
    assert page.locator("#mine-sum dt").all_inner_texts() == ["Answers", "Active time", "Earned"]
    assert page.locator("#mine-sum dd").first.inner_text() == "2"
    page.screenshot(path=screenshots / "mine.png")

    page.get_by_role("button", name="Change the answer to: First?").click()
    page.locator("#prompt").get_by_text("First?").wait_for()
    assert page.locator("#mine[open]").count() == 0
    assert page.evaluate("document.activeElement.id") == "prompt"
    assert "You are changing this answer" in page.locator("#hint").inner_text()
    page.keyboard.press("7")
    page.keyboard.press("Enter")
    page.locator("#prompt").get_by_text("Third?").wait_for()
    assert page.locator("#scale label:has(:checked)").inner_text().endswith("B slightly")  # as it was left
    page.get_by_text("Saved ✓").wait_for()
    given = house.answers(paid)
    assert [(row["item"], row["revision"]) for row in given] == [("i0", 1), ("i1", 1), ("i0", 2)]
    assert abs(given[0]["strength"]) == 2 and abs(given[2]["strength"]) == 3

    page.keyboard.press("h")
    page.locator("#mine-list li").nth(1).wait_for()
    assert "B much better" in page.locator("#mine-list li").first.inner_text()
    assert "changed" in page.locator("#mine-list li").first.inner_text()
    late = {"rule": "undo-too-late", "detail": "Too late."}
    page.route("**/reopen", lambda route: route.fulfill(status=409, json=late))
    page.get_by_role("button", name="Change the answer to: Second?").click()
    page.locator("#mine-error").get_by_text("Not opened. Too late.").wait_for()


def test_the_end_thanks_and_tells_what_was_earned(
    page: Any, server: Server, house: House, paid: str, begin: Callable, screenshots: Path
) -> None:
    page.clock.install()
    begin(page, server.url, paid)
    for prompt in ("First?", "Second?", "Third?"):
        page.locator("#prompt").get_by_text(prompt).wait_for()
        page.clock.run_for(20_000)
        answer(page, "2", prompt)
    page.get_by_role("heading", name="All done").wait_for()
    page.locator("#done-sum dd").nth(2).wait_for()
    assert "Thank you" in page.locator("#done-text").inner_text()
    answers, active, earned = page.locator("#done-sum dd").all_inner_texts()
    assert answers == "3" and active.startswith("1 min") and re.search(r"0\.6\d", earned) and "€" in earned
    page.screenshot(path=screenshots / "done.png")


# --- time ---


def test_lunch_is_not_paid(page: Any, server: Server, house: House, paid: str, begin: Callable) -> None:
    """An hour at the screen without a sign of life counts a minute at most; the time before and after counts."""
    page.clock.install()
    begin(page, server.url, paid)
    page.clock.run_for(20_000)
    page.keyboard.press("ArrowDown")
    page.clock.run_for(3_600_000)
    page.keyboard.press("ArrowDown")
    page.clock.run_for(10_000)
    answer(page, "2", "First?")
    page.get_by_text("Saved ✓").wait_for()
    ((seconds,),) = house.run(SECONDS, paid)
    assert seconds == pytest.approx(20 + 60 + 10, abs=3)


def test_each_sign_of_life_counts_for_a_minute(
    page: Any, server: Server, house: House, paid: str, begin: Callable
) -> None:
    page.clock.install()
    begin(page, server.url, paid)
    page.evaluate(COUNT_SIGNS)
    signs = {
        "a key": lambda: page.keyboard.press("ArrowUp"),
        "the pointer": lambda: page.mouse.move(200, 200 + len(paid)),
        "the wheel": lambda: page.mouse.wheel(0, 10),
        "a touch": lambda: page.locator("#prompt").dispatch_event("touchstart"),
    }
    for number, sign in enumerate(signs.values()):
        page.clock.run_for(50_000)
        sign()
        while page.evaluate("window.signs") <= number:  # a busy machine brings it late, and the clock must not go on
            pass
    page.clock.run_for(5_000)
    answer(page, "2", "First?")
    page.get_by_text("Saved ✓").wait_for()
    ((seconds,),) = house.run(SECONDS, paid)
    assert seconds == pytest.approx(4 * 50 + 5, abs=4)


def test_a_hidden_tab_counts_nothing(page: Any, server: Server, house: House, paid: str, begin: Callable) -> None:
    page.clock.install()
    begin(page, server.url, paid)
    page.clock.run_for(15_000)
    hide = """hidden => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
    }"""
    page.evaluate(hide, True)
    page.clock.run_for(40_000)
    page.evaluate(hide, False)
    page.clock.run_for(10_000)
    answer(page, "2", "First?")
    page.get_by_text("Saved ✓").wait_for()
    ((seconds,),) = house.run(SECONDS, paid)
    assert seconds == pytest.approx(15 + 10, abs=3)


def test_time_between_items_is_nobodys(page: Any, server: Server, house: House, paid: str, begin: Callable) -> None:
    """What passes while an answer is on its way and nothing is on the screen to rate counts for no item."""
    page.clock.install()
    begin(page, server.url, paid)
    answer(page, "2", "First?")
    answer(page, "2", "Second?")
    answer(page, "2", "Third?")
    page.get_by_role("heading", name="All done").wait_for()
    page.clock.run_for(30_000)
    page.keyboard.press("u")
    page.locator("#prompt").get_by_text("Third?").wait_for()
    page.clock.run_for(5_000)
    page.keyboard.press("3")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="All done").wait_for()
    ((seconds,),) = house.run(SECONDS, paid)
    assert seconds == pytest.approx(5, abs=2)  # those of the answer before, and those of the change


# --- questions ---


def test_a_rater_asks_and_the_owner_replies(
    page: Any, server: Server, house: House, paid: str, begin: Callable, screenshots: Path
) -> None:
    owner = f"{paid[:50]}.owner"
    with house.database.write() as session:
        add_person(session, find_project(session, paid), owner, role="owner", name=None, password=PASSWORD)
    begin(page, server.url, paid)
    page.keyboard.press("q")
    page.keyboard.press("Control+Enter")
    assert page.locator("#question[open]").count() == 1  # not without words
    page.route("**/questions", lambda route: route.abort(), times=1)
    page.get_by_label("Your question").fill("Is 2 the tens\nor the ones? <b>")
    page.keyboard.press("Control+Enter")
    page.locator("#question-error").get_by_text("Not sent.").wait_for()
    assert page.get_by_label("Your question").input_value().startswith("Is 2 the tens")
    page.keyboard.press("Control+Enter")
    page.get_by_text("Question sent ✓").wait_for()
    page.keyboard.press("2")  # and on with the work
    assert page.locator("#scale input:checked").count() == 1
    page.keyboard.press("h")
    page.locator("#mine-questions").get_by_text("no reply yet").wait_for()
    page.keyboard.press("Escape")

    olga = server.visitor(owner)
    ((number,),) = house.run("SELECT max(id) FROM questions")
    said = olga.http.post(f"{olga.project}/questions/{number}/reply", json={"text": "The ones. <script>1</script>"})
    assert said.status_code == 204, said.text
    page.reload()
    page.locator("#concord[data-view=work]").wait_for()
    page.locator("#mine-badge").get_by_text("1").wait_for()
    assert page.get_by_role("button", name="My answers, new replies: 1").is_visible()
    page.screenshot(path=screenshots / "badge.png")
    page.keyboard.press("h")
    page.locator("#mine-questions .reply").get_by_text("The ones. <script>1</script>").wait_for()
    assert page.locator("#mine-questions .new").count() == 1
    page.locator("#mine-badge").wait_for(state="hidden")
    page.keyboard.press("Escape")
    page.reload()
    page.locator("#concord[data-view=work]").wait_for()
    page.wait_for_timeout(500)
    assert page.locator("#mine-badge").is_hidden()


# --- guidelines ---


def test_changed_guidelines_announce_themselves(
    page: Any, server: Server, house: House, sign_in: Callable, screenshots: Path
) -> None:
    login = house.project("guided", *three_pairs(), guidelines="Prefer what is **true**.\n\nNever mind the length.")
    sign_in(page, server.url, login)
    page.locator("#guidelines[open]").wait_for()
    assert page.locator("#guidelines-changed").is_hidden()  # the first time nothing has changed
    page.get_by_role("button", name="I have read them, start").click()
    page.locator("#concord[data-view=work]").wait_for()
    page.keyboard.press("g")
    page.locator("#guidelines[open]").wait_for()
    page.keyboard.press("Escape")

    house.run(
        "INSERT INTO guidelines (project_id, version, text) SELECT id, 2, ? FROM projects WHERE name = ?",
        "Prefer what is **true** and *short*.",
        login,
    )
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    page.get_by_text("The guidelines have changed since you read them").wait_for()
    marked = page.evaluate("[...CSS.highlights.get('differs-news')].map(String).join(' ')")
    assert marked.split() == ["and", "short"]
    page.get_by_text("What was taken out").click()
    assert "Never mind the length" in page.locator("#guidelines-gone-list").inner_text()
    page.screenshot(path=screenshots / "guidelines-changed.png")
    page.get_by_role("button", name="I have read them, start").click()
    page.locator("#prompt").get_by_text("Second?").wait_for()
    page.keyboard.press("g")
    page.locator("#guidelines[open]").wait_for()
    assert page.locator("#guidelines-changed").is_hidden()
    assert page.evaluate("CSS.highlights.has('differs-news')") is False
