"""A rater and an owner at a real browser, on a real server."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.annotate.conftest import PASSWORD, Annotate, Server
from tests.e2e.conftest import House

pytestmark = pytest.mark.browser

HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "<svg onload=\"document.title='owned'\"><form action=/logout><button>Submit</button></form>"
    "<style>body{display:none}</style> [link](javascript:document.title='owned') "
    "![pixel](https://evil.example/pixel.png) ${document.title='owned'} {{document.title='owned'}}"
)
ITEMS: list[dict[str, Any]] = [
    {
        "id": "pair",
        "priority": 3.0,
        "prompt": "How do I print *hello* in Python?",
        "responses": [
            {"text": "```python\nprint('hello')\n```", "model": "model-good"},
            {"text": "Use **echo**.", "model": "model-bad"},
        ],
    },
    {"id": "four", "priority": 2.0, "prompt": "Count!", "responses": ["zeroth", "first", "second", "third"]},
    {
        "id": "turns",
        "priority": 1.0,
        "prompt": [
            {"role": "user", "content": "Hello."},
            {"role": "assistant", "content": "Hello, what can I do?"},
            {"role": "user", "content": HOSTILE},
        ],
        "responses": [HOSTILE, "harmless"],
    },
]


@pytest.fixture(scope="module")
def project(shared_annotate: Annotate) -> Annotate:
    annotate = shared_annotate
    (annotate.folder / "g.md").write_text("Prefer what **works**.\n")
    annotate.ok("project", "create", "p", "--guidelines", "g.md", "--overlap", "3")
    for login in ("anna", "ben", "cem"):
        annotate.person("p", login)
    annotate.person("p", "olga", "--role", "owner")
    annotate.write("items.jsonl", *ITEMS)
    annotate.ok("import", "p", "items.jsonl")
    return annotate


def letter_of(page: Any, text: str) -> str:
    """The letter over the response that says `text`, wherever the shuffle put it."""
    card = page.locator(".response").filter(has_text=text)
    return card.locator(".letter").inner_text()


def start_rating(page: Any) -> None:
    """Read the guidelines and wait for the first item."""
    page.locator("#guidelines[open]").wait_for()
    assert "Prefer what works." in page.locator("#guidelines-text").inner_text()
    for _ in range(3):
        page.keyboard.press("Escape")  # the first reading can't be waved away, it comes back
    page.wait_for_timeout(300)
    assert page.locator("#guidelines[open]").count() == 1
    page.get_by_role("button", name="I have read them, start").click()
    page.locator("#concord[data-view=work]").wait_for()


def answers_of(project: Annotate, login: str, folder: str) -> dict[str, dict[str, Any]]:
    project.ok("export", "p", folder)
    pseudonym = next(p["pseudonym"] for p in project.json("report", "p")["people"] if p["rater"] == login)
    return {
        row["ranking"]: answer
        for row in project.rows(f"{folder}/rankings.jsonl")
        for answer in row["answers"]
        if answer["rater"] == pseudonym
    }


def test_a_rater_ranks_by_keyboard_and_finds_it_in_the_export(
    page: Any, server: Server, project: Annotate, sign_in: Callable, screenshots: Path
) -> None:
    sign_in(page, server.url + "/rate/", "anna", "not the password")
    assert "don't belong together" in page.get_by_role("alert").inner_text()
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    start_rating(page)

    assert page.locator("#count").inner_text().startswith("0 of")
    assert page.locator("#prompt em").inner_text() == "hello" and page.locator(".response pre code").count() == 1
    assert page.locator("#submit").get_attribute("aria-disabled") == "true"
    page.keyboard.press("Enter")  # nothing chosen: nothing sent
    assert page.locator("#count").inner_text().startswith("0 of")
    page.keyboard.press("2" if letter_of(page, "print(") == "A" else "6")  # the working one is clearly better
    page.screenshot(path=screenshots / "pair.png")
    page.keyboard.press("Enter")
    page.get_by_text("Saved ✓").wait_for()
    assert page.locator("#count").inner_text().startswith("1 of")

    ranks = {"zeroth": "3", "first": "1", "second": "2", "third": "2"}
    cards = page.locator(".response .body").all_inner_texts()
    assert sorted(cards) == sorted(ranks)
    for text in cards:
        page.keyboard.press(ranks[text])
    assert page.locator("#submit").get_attribute("aria-disabled") == "true"  # the strength is still to be said
    page.keyboard.press("3")
    page.screenshot(path=screenshots / "four.png")
    page.keyboard.press("Enter")
    page.locator("#count").get_by_text("2 of").wait_for()

    page.get_by_role("radio", name="Same").click()
    page.screenshot(path=screenshots / "turns.png")
    page.locator("#submit").click()
    page.get_by_role("heading", name="All done").wait_for()
    page.screenshot(path=screenshots / "done.png")

    answers = answers_of(project, "anna", "anna-out")
    assert (answers["pair"]["ranks"], answers["pair"]["strength"]) == ([1, 2], -2)
    assert (answers["four"]["ranks"], answers["four"]["strength"]) == ([3, 1, 2, 2], 3)
    assert (answers["turns"]["ranks"], answers["turns"]["strength"]) == ([1, 1], 0)
    assert all(answer["guideline"] == 1 and answer["seconds"] > 0 for answer in answers.values())


def test_a_rater_ranks_with_the_mouse_and_loses_no_draft(
    page: Any, server: Server, project: Annotate, sign_in: Callable
) -> None:
    sign_in(page, server.url, "ben", PASSWORD)
    start_rating(page)
    page.get_by_role("radio", name=f"{letter_of(page, 'echo')} slightly").click()
    order = page.locator(".letter + *, .response .body").all_inner_texts()
    page.reload()
    page.locator("#concord[data-view=work]").wait_for()
    assert page.locator(".letter + *, .response .body").all_inner_texts() == order  # same item, same order
    assert page.locator("#scale input:checked").count() == 1  # and what was chosen

    page.locator("#submit").click()
    page.get_by_text("Saved ✓").wait_for()
    answers = answers_of(project, "ben", "ben-out")
    assert (answers["pair"]["ranks"], answers["pair"]["strength"]) == ([2, 1], 1)


def test_hostile_text_neither_runs_nor_loads(page: Any, server: Server, project: Annotate, sign_in: Callable) -> None:
    foreign: list[str] = []
    page.on("request", lambda request: foreign.append(request.url) if not request.url.startswith(server.url) else None)
    sign_in(page, server.url, "cem", PASSWORD)
    start_rating(page)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.locator("#count").get_by_text("1 of").wait_for()
    for key in "1234":
        page.keyboard.press(key)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.locator("#count").get_by_text("2 of").wait_for()

    assert "<script>" in page.locator(".response").filter(has_text="owned").inner_text()  # shown as what it is
    assert page.locator(":is(.response, #prompt) :is(script, img, svg, form, button, style, iframe)").count() == 0
    assert page.locator(":is(.response, #prompt) .body [id], :is(.response, #prompt) .body [class]").count() == 0
    assert page.locator('a[href^="javascript"]').count() == 0
    assert "owned" not in page.title()
    assert page.evaluate("getComputedStyle(document.body).display") != "none"
    assert [url for url in foreign if not url.startswith("data:") and "evil.example" in url] == []


def test_an_owner_sees_progress_and_a_rater_does_not(
    page: Any, browser: Any, server: Server, project: Annotate, sign_in: Callable
) -> None:
    sign_in(page, server.url + "/owner/", "olga", PASSWORD)
    page.get_by_role("link", name="p", exact=True).click()
    page.locator(".tile").filter(has_text="items with an answer").wait_for()
    page.get_by_role("table", name="Answers per rater").get_by_role("rowheader", name="anna").wait_for()

    context = browser.new_context()
    rater = context.new_page()
    sign_in(rater, server.url + "/owner/", "anna", PASSWORD)
    rater.get_by_text("This page is not yours").wait_for()
    assert "items with an answer" not in rater.content()
    assert rater.goto(server.url + "/owner/config").status == 403
    context.close()


@pytest.mark.parametrize("width", [420, 1280])
def test_twelve_responses_can_be_read_and_ranked(
    page: Any, server: Server, house: House, begin: Callable, width: int
) -> None:
    twelve = {"prompt": "Twelve?", "responses": [f"text {n}" for n in range(12)]}
    page.set_viewport_size({"width": width, "height": 800})
    begin(page, server.url, house.project(f"twelve-{width}", twelve))
    for index in range(12):
        card = page.locator(".response").nth(index)
        card.locator(".body").scroll_into_view_if_needed()
        shown, text = card.bounding_box(), card.locator(".body").bounding_box()
        assert text["y"] + text["height"] <= shown["y"] + shown["height"]
        last = card.get_by_role("radio").last.bounding_box()
        assert last["x"] + last["width"] <= shown["x"] + shown["width"]


def test_the_page_fits_a_narrow_screen(
    page: Any, server: Server, screenshots: Path, begin: Callable, pairs: str
) -> None:
    page.set_viewport_size({"width": 420, "height": 900})
    begin(page, server.url, pairs)
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    page.get_by_text("Saved ✓").wait_for()
    wide = page.evaluate("document.querySelector('#concord').scrollWidth")
    assert wide <= 420
    box = page.locator("#submit").bounding_box()
    assert box is not None and box["y"] + box["height"] <= 900  # in view without scrolling
    page.screenshot(path=screenshots / "narrow.png")
