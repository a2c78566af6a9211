"""The owner's and the reviewer's page for everybody: axe on every part, light and dark, narrow, large, by keyboard."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.annotate.conftest import PASSWORD, Server
from tests.e2e.conftest import House
from tests.e2e.test_steer import Steered

pytestmark = pytest.mark.browser

OWNERS = ["overview", "items", "questions", "agreement", "raters", "people", "gold", "pay", "export", "settings"]
REVIEWERS = OWNERS[:5]
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# What Gradio's own frame around the page does, and we can't mend; docs/accessibility.md says the same.
UPSTREAM: set[str] = set()


@pytest.fixture(scope="module")
def lived_in(server: Server, house: House) -> Steered:
    """A project with a bit of everything."""
    items = [
        *({"prompt": f"Number {n}?", "responses": ["one", "two"], "tags": ["de"]} for n in range(4)),
        {"prompt": "Four?", "responses": ["one", "two", "three", "four"], "priority": -1.0},
        *({"prompt": f"Known {n}?", "responses": ["one", "two"], "gold": [1, 2]} for n in range(2)),
    ]
    pay = {"amount": 12, "currency": "EUR", "per": "hour"}
    dimensions = [{"name": "helpful", "anchors": ["no", "", "yes"]}]
    project = Steered(server, house, "lived-in", items, pay=pay, skills=["law"], warnings={"de": "German."})
    rater = project.rate(0, "one", times=4, flags=["broken"], rationale="So.")
    project.rate(1, "two", times=4)
    task = rater.next()["task"]["assignment"]
    rater.http.post(f"{rater.project}/questions", json={"assignment": task, "text": "Why?"})
    owner = server.visitor(project.owner)
    path = f"/api/v1/projects/{project.id}"
    assert owner.http.post(f"{path}/invitations", json={"role": "rater"}).status_code == 201
    assert owner.http.post(f"{path}/guidelines", json={"text": "Be *fair*."}).status_code == 201
    change = {"dimensions": dimensions, "mask": ["GPT-4"], "consent": "Do you?"}
    assert owner.http.patch(path, json=change, headers={"If-Match": '"1"'}).status_code == 200
    return project


def violations(page: Any) -> list[str]:
    """What axe finds, as "rule: where"."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page, options={"runOnly": WCAG}).response["violations"]
    return [
        f"{rule['id']}: {node['target'][0]}" for rule in found for node in rule["nodes"] if rule["id"] not in UPSTREAM
    ]


def open_part(page: Any, project: Steered, path: str, site: str = "owner") -> None:
    page.evaluate("hash => { location.hash = hash; }", f"#/{path}")
    page.wait_for_function(
        "hash => location.hash === hash && document.querySelector('.part:not([aria-busy]) h1')", arg=f"#/{path}"
    )
    page.wait_for_load_state("networkidle")


def unfold(page: Any) -> None:
    """Open whatever can be opened on a part."""
    page.evaluate("document.querySelectorAll('.part details').forEach(one => { one.open = true; })")


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_axe_finds_nothing_on_any_part(page: Any, lived_in: Steered, sign_in: Callable, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    found: dict[str, list[str]] = {}
    within = f"projects/{lived_in.id}/"
    first, four = (lived_in.items[number] for number in (0, 4))
    paths = {
        "owner": ["", "new", *(within + part for part in OWNERS), f"{within}items?all=1"],
        "review": ["", *(within + part for part in REVIEWERS)],
    }
    for site, login in (("owner", lived_in.owner), ("review", lived_in.reviewer)):
        page.context.clear_cookies()
        sign_in(page, f"{lived_in.server.url}/{site}/", login, PASSWORD)
        page.locator(".part h1").wait_for()
        for path in [*paths[site], f"{within}items/{first}", f"{within}items/{four}"]:
            open_part(page, lived_in, path)
            unfold(page)
            found[f"{site} {path}"] = violations(page)
    open_part(page, lived_in, f"{within}items/{lived_in.items[2 if scheme == 'light' else 3]}")
    page.get_by_role("radio", name="Same").check()
    page.get_by_role("button", name="Decide").click()
    page.get_by_role("heading", name="What raters said").wait_for()
    found["votes"] = violations(page)
    assert [f"{place} {one}" for place, said in found.items() for one in said] == []


def test_axe_finds_nothing_in_a_dialog(page: Any, lived_in: Steered, sign_in: Callable) -> None:
    sign_in(page, lived_in.url("people"), lived_in.owner)
    page.get_by_role("button", name="Make a link").click()
    page.get_by_role("dialog").wait_for()
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")


@pytest.mark.parametrize(("width", "size"), [(360, 1), (360, 1.5), (768, 1), (1440, 1.5)])
def test_nothing_sticks_out_sideways(page: Any, lived_in: Steered, sign_in: Callable, width: int, size: float) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.add_init_script(f"localStorage.setItem('concord:text-size', '{size}')")
    sign_in(page, f"{lived_in.server.url}/owner/", lived_in.owner, PASSWORD)
    page.locator(".part h1").wait_for()
    within = f"projects/{lived_in.id}/"
    for path in ("", "new", *(within + part for part in OWNERS), f"{within}items/{lived_in.items[4]}"):
        open_part(page, lived_in, path)
        unfold(page)
        content = page.evaluate("(({ scrollWidth, clientWidth }) => [scrollWidth, clientWidth])(content)")
        whole = page.evaluate("(({ scrollWidth, clientWidth }) => [scrollWidth, clientWidth])(concord)")
        assert content[0] <= content[1] and whole[0] <= whole[1], (path, content, whole)


def test_an_item_is_decided_by_keyboard(page: Any, lived_in: Steered, sign_in: Callable) -> None:
    sign_in(page, lived_in.url("items", str(lived_in.items[1])), lived_in.owner)
    page.get_by_role("heading", name="What do you say?").wait_for()
    page.get_by_role("radio", name="A much better").focus()
    page.keyboard.press("ArrowRight")  # as with any radio buttons
    page.keyboard.press("Tab")
    page.keyboard.type("Because.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Your decision").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Your decision"
    assert "A clearly" in page.locator(".votes .panel").first.inner_text()
