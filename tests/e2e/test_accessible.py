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

CODE = (
    "Like **this**:\n\n```python\nprint('hello')\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
    + "Word after word. " * 300
)
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
        return [
            f"{one['id']}: {node['html'][:160]} {node['failureSummary'][:300]}"
            for one in found
            for node in one["nodes"]
        ]

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


@pytest.mark.parametrize(
    ("width", "theme"),
    [
        (WIDTHS[0], "light"),
        (WIDTHS[-1], "dark"),
        pytest.param(WIDTHS[0], "dark", marks=pytest.mark.slow),
        pytest.param(WIDTHS[-1], "light", marks=pytest.mark.slow),
    ],
)
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


# --- by keyboard, by ear ---

# Everything that is announced, in order, with what gets the focus: as "says …" and "focus …".
LISTEN = """() => {
  window.heard = [];
  const hear = (text) => text.trim() && window.heard.push("says " + text.trim().replace(/\\s+/g, " "));
  for (const region of document.querySelectorAll("[role=status], [role=alert]")) {
    let before = "";
    new MutationObserver(() => {
      const now = region.checkVisibility() || region.id === "told" ? region.textContent : "";
      if (now !== before) hear(now);
      before = now;
    }).observe(region, { childList: true, subtree: true, characterData: true, attributes: true });
  }
}"""


def stop(page: Any) -> str:
    """What a screen reader says of what has the focus: role and name, from the accessibility tree."""
    session = page.context.new_cdp_session(page)
    handle = session.send("Runtime.evaluate", {"expression": "document.activeElement"})["result"]["objectId"]
    node = session.send("Accessibility.getPartialAXTree", {"objectId": handle, "fetchRelatives": False})["nodes"][0]
    session.detach()
    return f"focus {node['role']['value']} {node.get('name', {}).get('value', '')}".strip()


def heard(page: Any, count: int = 0) -> list[str]:
    """What was announced since this was last asked; waits until it is so much."""
    page.wait_for_function("count => window.heard.length >= count", arg=count)
    page.wait_for_timeout(100)
    return page.evaluate("window.heard.splice(0)")


def test_what_somebody_hears_who_answers_one_item(page: Any, server: Server, pairs: str, begin: Callable) -> None:
    """docs/accessibility.md tells this to people: change both."""
    begin(page, server.url, pairs)
    page.wait_for_load_state("networkidle")  # what is told while the page loads is over
    page.locator("#count").get_by_text("0 of 3").wait_for()
    page.evaluate(LISTEN)
    assert stop(page) == "focus region Prompt"
    assert page.locator("#prompt").inner_text() == "First?"
    told = []
    for _ in range(4):
        page.keyboard.press("Tab")
        told.append(stop(page))
    assert told == [
        "focus button What differs D",
        "focus region Text of response A",
        "focus region Text of response B",
        "focus radio 1 A much better",
    ]
    group = page.locator("#scale").aria_snapshot()
    assert 'radiogroup "Which response is better?"' in group and group.count("radio") == 8
    assert heard(page) == []
    page.keyboard.press("2")
    assert heard(page, 1) == ["says A clearly. Enter submits."]
    page.keyboard.press("Enter")
    page.locator("#prompt").get_by_text("Second?").wait_for()
    page.get_by_text("Saved ✓").wait_for()
    assert heard(page, 3) == ["says Saving…", "says 1 of 3", "says Saved ✓"]
    assert stop(page) == "focus region Prompt"  # reading begins anew, at the next item

    page.wait_for_timeout(1200)  # a second Enter at once is no answer, and no mistake
    page.keyboard.press("Enter")  # too early
    assert heard(page, 1) == ["says Which one is better? Keys 1 to 7 choose."]
    page.keyboard.press("u")
    page.locator("#prompt").get_by_text("First?").wait_for()
    assert stop(page) == "focus region Prompt"
    assert "You are changing this answer" in page.locator("#hint").inner_text()


def test_the_whole_page_by_tab(page: Any, server: Server, house: House, login: str, begin: Callable) -> None:
    """Focus goes from top to bottom, shows where it is, is never hidden behind what sticks, and nothing holds it."""
    begin(page, server.url, house.project(login, RICH[1], *three_pairs(), guidelines=None))
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        page.locator("#mine-open").focus()
        seen = [stop(page)]
        while len(seen) < 80:
            page.keyboard.press("Tab")
            here = stop(page)
            if here in seen[:1] or here == "focus none" or "RootWebArea" in here:
                break
            seen.append(here)
            shown = page.evaluate(SHOWN)
            assert shown["outline"] >= 2, here
            assert shown["visible"], here
        names = " / ".join(seen)
        assert len(seen) < 80 and "button My answers" in names and "button Submit" in names
        stops = ["My answers", "Prompt", "Text of response A", "Text of response D", "Submit"]
        assert [names.index(one) for one in stops] == sorted(names.index(one) for one in stops)


# How wide the outline of the focus is, and whether its place is in view and on top of all else.
SHOWN = """() => {
  const at = document.activeElement;
  const boxes = [at, at.closest("label"), at.closest(".prompt, .response")].filter(Boolean);
  const width = (box) => {
    const { outlineStyle, outlineWidth } = getComputedStyle(box);
    return outlineStyle === "none" ? 0 : parseFloat(outlineWidth);
  };
  const { left, top, width: w, height: h } = at.getBoundingClientRect();
  const points = [[0.5, 0.5], [0.2, 0.2], [0.8, 0.2], [0.5, 0.02], [0.2, 0.8]];
  const seen = points.some(([x, y]) => {
    const hit = document.elementFromPoint(left + x * w, top + y * h);
    return hit && boxes.some((box) => box.contains(hit) || hit.contains(at));
  });
  return { outline: Math.max(...boxes.map(width)), visible: seen };
}"""


def test_keys_that_write_a_character_can_be_switched_off(
    page: Any, server: Server, pairs: str, begin: Callable
) -> None:
    begin(page, server.url, pairs)
    page.keyboard.press("?")
    page.get_by_label("Use keys that write a character").uncheck()
    page.keyboard.press("Escape")
    for key in "2sfuhgq?":
        page.keyboard.press(key)
    assert page.locator("dialog[open]").count() == 0 and page.locator("#scale input:checked").count() == 0
    page.get_by_role("radio", name="A clearly").check()
    page.keyboard.press("Enter")
    page.get_by_text("Saved ✓").wait_for()
    page.reload()
    page.locator("#concord[data-view=work]").wait_for()
    page.locator(".view-menu summary").click()
    page.get_by_role("button", name="Keys").click()
    assert not page.get_by_label("Use keys that write a character").is_checked()
    page.get_by_label("Use keys that write a character").check()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.keyboard.press("5")
    assert page.locator("#scale input:checked").count() == 1


# --- zoomed, small, large, quiet, in other colours, by touch ---

WIDE = """() => {
  const page = document.querySelector("#concord") ?? document.documentElement;
  const over = Math.max(page.scrollWidth - page.clientWidth, document.documentElement.scrollWidth - innerWidth);
  if (over <= 0) return null;
  const wide = [...page.querySelectorAll("*")].filter((one) =>
    one.checkVisibility() && one.getBoundingClientRect().right > innerWidth + 1 && !one.closest("pre, table, .text"));
  return over + " px: " + wide.slice(0, 3).map((one) => one.outerHTML.slice(0, 100)).join(" | ");
}"""


@pytest.mark.parametrize(("width", "size"), [(360, 1), (320, 1), (360, 1.5), (640, 1), (1280, 1.5)])
def test_nothing_is_wider_than_the_screen(
    page: Any, server: Server, everything: str, sign_in: Callable, width: int, size: float
) -> None:
    """At 320 and 360 px, at 200% zoom of a 1280 px window, and with the largest text."""
    page.set_viewport_size({"width": width, "height": 740})
    page.add_init_script(f"localStorage.setItem('concord:text-size', '{size}')")
    found = {view: wide for view in views(page, server, everything, sign_in) if (wide := page.evaluate(WIDE))}
    for path in ("/account", "/login"):
        page.goto(server.url + path)
        if wide := page.evaluate(WIDE):
            found[path] = wide
    assert found == {}


def test_what_a_finger_touches_is_large_enough(
    browser: Any, server: Server, everything: str, sign_in: Callable
) -> None:
    """44 px by touch, but for links within sentences; 24 px, by axe's rule, with a mouse."""
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    page = context.new_page()
    found = {}
    for view in views(page, server, everything, sign_in):
        small = page.evaluate(
            """() => [...document.querySelectorAll("#concord :is(button, summary, select, label:has(input))")]
              .filter((one) => one.checkVisibility({ visibilityProperty: true }))
              .map((one) => [one.outerHTML.slice(0, 90), one.getBoundingClientRect()])
              .filter(([, box]) => box.width > 0 && (box.height < 43.5 || box.width < 30))
              .map(([html, box]) => `${Math.round(box.width)}x${Math.round(box.height)} ${html}`)"""
        )
        if small:
            found[view] = small
    context.close()
    assert found == {}


def test_nothing_moves_for_who_wants_less_motion(page: Any, server: Server, pairs: str, begin: Callable) -> None:
    moving = """() => [...document.querySelectorAll("#concord, #concord *")].filter((one) => {
      const { transitionDuration, animationName } = getComputedStyle(one);
      return parseFloat(transitionDuration) > 0 || animationName !== "none";
    }).length"""
    page.emulate_media(reduced_motion="reduce")
    begin(page, server.url, pairs)
    assert page.evaluate(moving) == 0
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moving) > 0


def test_forced_colours_show_what_is_chosen(page: Any, server: Server, pairs: str, begin: Callable) -> None:
    """Where the system takes our grounds away, what is chosen still stands out from what is not."""
    page.emulate_media(forced_colors="active")
    begin(page, server.url, pairs)
    page.keyboard.press("2")
    styles = page.evaluate(
        """() => [...document.querySelectorAll("#scale label")].map((one) => {
          const style = getComputedStyle(one);
          return [style.backgroundColor, style.color].join(" ");
        })"""
    )
    assert styles[1] != styles[0] and len(set(styles)) == 2
    best = page.locator(".response.best").evaluate("one => getComputedStyle(one).outlineStyle")
    assert best != "none"


# --- light, dark, large: chosen and kept ---


def test_colours_and_text_size_are_kept(page: Any, server: Server, pairs: str, begin: Callable) -> None:
    ground = "getComputedStyle(document.querySelector('#concord')).backgroundColor"
    page.emulate_media(color_scheme="light")
    begin(page, server.url, pairs)
    light = page.evaluate(ground)
    page.locator(".view-menu summary").click()
    page.get_by_role("radio", name="Dark").check()
    dark = page.evaluate(ground)
    assert dark != light and page.evaluate("document.body.classList.contains('dark')")
    small = page.locator("#prompt").evaluate("one => parseFloat(getComputedStyle(one).fontSize)")
    page.get_by_role("button", name="Larger text").click()
    page.get_by_role("button", name="Larger text").click()
    assert page.locator(".view-menu .size").inner_text() == "130%"
    page.reload()
    page.locator("#concord[data-view=work]").wait_for()
    assert page.evaluate(ground) == dark
    large = page.locator("#prompt").evaluate("one => parseFloat(getComputedStyle(one).fontSize)")
    assert large == pytest.approx(1.3 * small, rel=0.01)
    page.goto(server.url + "/account")  # and on the plain pages
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.goto(server.url + "/rate/")
    page.locator("#concord[data-view=work]").wait_for()
    page.locator(".view-menu summary").click()
    page.get_by_role("radio", name="As the system").check()
    assert page.evaluate(ground) == light
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.body.classList.contains('dark')")
    assert page.evaluate(ground) == dark
