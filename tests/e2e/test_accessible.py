"""Everyone can use the rater's page and the plain pages: WCAG 2.2 AA by axe, by keyboard, by ear, zoomed, and by touch.

axe alone does not show AA. So there is also a script of what somebody hears who answers one item by keyboard alone, and
checks of focus, reflow, sizes, motion and forced colours.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from annotate.services.people import add_person
from annotate.services.projects import find_project
from tests.annotate.conftest import PASSWORD, Server
from tests.e2e.conftest import House, three_pairs

pytestmark = pytest.mark.browser

CODE = "Like **this**:\n\n```python\nprint('hello')\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n" + "Word after word. " * 300
RICH: list[dict[str, Any]] = [
    {
        "prompt": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello!"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "How do I print?"},
        ],
        "responses": [CODE, CODE.replace("hello", "hallo")],
        "priority": 3.0,
    },
    {"prompt": "Which of four?", "responses": ["one", "two", "three", "four " * 200], "priority": 2.0},
    {"prompt": "Wounds?", "responses": ["red", "blue"], "tags": ["medical"], "priority": 1.0},
]
GOLD = {"responses": ["right", "wrong"], "gold": [1, 2], "explanation": "Because it is *right*."}
STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WIDTHS = [1440, 360]


@pytest.fixture
def axe() -> Callable[[Any], list[str]]:
    """What axe finds on a page, a line for each node."""
    module = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing")
    runner = module.Axe()

    def run(page: Any) -> list[str]:
        page.evaluate("document.getAnimations().forEach(one => one.finish())")
        found = runner.run(page, options={"runOnly": {"type": "tag", "values": STANDARDS}}).response["violations"]
        return [f"{one['id']}: {node['html'][:160]} {node['failureSummary'][:300]}" for one in found for node in one["nodes"]]

    return run


@pytest.fixture
def login(request: pytest.FixtureRequest) -> str:
    return re.sub(r"\W+", ".", request.node.name)[:50]


@pytest.fixture
def everything(house: House, login: str) -> str:
    """The login of a rater whose project has about all that the rater's page can show."""
    return house.project(
        login,
        {"prompt": "Practice?", "priority": 9.0, **GOLD},
        *RICH,
        guidelines="# Guidelines\n\nPrefer what **works**.\n\n## Example\n\n> 4 is better than 5.",
        consent="You take part in a study.",
        warnings={"medical": "Describes wounds"},
        practice=1,
        gold_rate=0.0,
        dimensions=[{"name": "helpful", "anchors": ["useless", "", "just right"]}],
        rationale="optional",
        edit=True,
        spans=True,
        all_bad=True,
        pay={"amount": 12.5, "currency": "EUR", "per": "hour"},
    )


def views(page: Any, server: Server, login: str, sign_in: Callable) -> Iterator[str]:
    """Walk through every view and dialog of the rater's page; gives the name of what is on the screen."""
    sign_in(page, server.url, login)
    page.locator("#concord[data-view=consent]").wait_for()
    yield "consent"
    page.locator("#agree").click()
    page.locator("#guidelines[open]").wait_for()
    yield "first guidelines"
    page.locator("#guidelines-close").click()
    page.locator("#concord[data-view=work]").wait_for()
    yield "practice"
    rate_all(page)
    page.locator("#feedback").wait_for()
    yield "feedback"
    page.keyboard.press("Enter")
    page.locator("#prompt").get_by_text("How do I print?").wait_for()
    yield "a pair"
    page.locator("#differs").click()
    page.locator("#differs-said span").first.wait_for()
    yield "what differs"
    page.locator("#differs").click()
    page.locator(".view-menu summary").click()
    yield "the view menu"
    page.keyboard.press("Escape")
    for key, dialog in {"?": "keys", "h": "mine", "q": "question", "g": "guidelines", "s": "skip", "f": "flag"}.items():
        page.locator("#prompt").focus()
        page.keyboard.press(key)
        page.locator(f"#{dialog}[open]").wait_for()
        page.wait_for_timeout(200)
        yield f"the dialog {dialog}"
        page.keyboard.press("Escape")
        page.locator(f"#{dialog}[open]").wait_for(state="detached")
    rate_all(page)
    page.locator("#prompt").get_by_text("Which of four?").wait_for()
    page.get_by_text("Saved ✓").wait_for()
    yield "four responses"
    rate_all(page)
    page.locator("#prompt").get_by_text("Wounds?").wait_for()
    yield "covered"
    page.locator("#uncover").click()
    rate_all(page)
    page.get_by_role("heading", name="All done").wait_for()
    page.locator("#done-sum").wait_for()
    yield "done"
    page.keyboard.press("h")
    page.locator("#mine-list button").first.wait_for()
    yield "my answers"
    page.keyboard.press("Escape")
    page.route("**/api/v1/me", lambda route: route.abort())
    page.locator("#look-again").click()
    page.locator("#concord[data-view=stuck]").wait_for()
    yield "stuck"


def rate_all(page: Any) -> None:
    """Give the first step of all that is asked for, and submit."""
    page.locator("#prompt").focus()
    for _ in range(60):
        if page.locator("#submit").get_attribute("aria-disabled") == "false":
            break
        page.keyboard.press("1")
    page.keyboard.press("Enter")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_on_the_raters_page(
    page: Any, server: Server, everything: str, sign_in: Callable, axe: Callable, width: int, theme: str
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    found = {view: problems for view in views(page, server, everything, sign_in) if (problems := axe(page))}
    assert found == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_on_the_plain_pages(
    page: Any, server: Server, house: House, login: str, sign_in: Callable, axe: Callable, width: int, theme: str
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme)
    house.project(login, *three_pairs())
    owner = f"{login}.owner"
    with house.database.write() as session:
        add_person(session, find_project(session, login), owner, role="owner", name=None, password=PASSWORD)
    olga = server.visitor(owner)
    link = olga.http.post(f"{olga.project}/invitations", json={"role": "rater"}).json()["path"]
    found = {}
    for path in ("/login", link, "/join/no-link.at-all"):
        page.goto(server.url + path)
        found[path.split("/")[1] + str(len(found))] = axe(page)
    page.goto(server.url + "/login")
    page.get_by_label("Login").fill("nobody")
    page.get_by_label("Password").fill("not the password")
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for()
    found["wrong password"] = axe(page)
    sign_in(page, server.url, login)
    page.locator("#concord[data-view=work]").wait_for()
    for path in ("/account", "/owner/"):
        page.goto(server.url + path)
        found[path] = axe(page)
    assert {name: problems for name, problems in found.items() if problems} == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_where_a_project_is_chosen(
    page: Any, server: Server, house: House, login: str, sign_in: Callable, axe: Callable, theme: str
) -> None:
    page.emulate_media(color_scheme=theme)
    house.project(login, *three_pairs())
    house.project(f"{login}.2", *three_pairs())
    with house.database.write() as session:
        other = find_project(session, f"{login}.2")
        add_person(session, other, login, role="rater", name=None, password=None)
    sign_in(page, server.url, login)
    page.locator("#concord[data-view=choose]").wait_for()
    assert axe(page) == []
