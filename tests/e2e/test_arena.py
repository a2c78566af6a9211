"""The arena at a real browser: chat with two models, vote, hear their names; and all that can go wrong on the way."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from annotate.store.database import open_database
from tests.align.conftest import make_tiny_model
from tests.annotate.conftest import Annotate, Server
from tests.e2e.conftest import House
from tests.endpoints import HTML, TINY, Outside, align_serve, outside

pytestmark = pytest.mark.browser
LONG = "say:" + "Many words that take their time to be shown. " * 12


@pytest.fixture(scope="module")
def world() -> Iterator[Outside]:
    with outside() as server:
        yield server


@pytest.fixture(autouse=True)
def outside_as_it_was(world: Outside) -> None:
    world.go_on.clear()
    world.mended.clear()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, world: Outside) -> Iterator[tuple[House, Server]]:
    """A server that knows real models and those of the outside world."""
    tiny = make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    annotate = Annotate(tmp_path_factory.mktemp("arena"))
    open_database(str(annotate.folder / "data/annotate.db"), create=True)
    with align_serve(tiny) as url:
        real = {name: {"base_url": url, "model": str(tiny), **TINY} for name in ("tiny-one", "tiny-two")}
        does = ["say:**Bold** and `plain`.", "say:Hm.", "say:" + HTML, "waits:Left", "waits:Right", "dies", LONG]
        other = {name[:40].strip(): {"base_url": world.url, "model": name} for name in does}
        (annotate.folder / "models.yaml").write_text(json.dumps(real | other))
        with annotate.served(options=["--models", "models.yaml"]) as server:
            yield House(annotate), server


@pytest.fixture
def arena(place: tuple[House, Server], request: pytest.FixtureRequest, page: Any, sign_in: Callable) -> Callable:
    """Makes a project with these models, and opens its page as its rater; returns their login."""
    house, server = place

    def arena(*models: str, **settings: Any) -> str:
        name = re.sub(r"\W", "-", request.node.name)[:60]
        login = house.project(name, arena=[name[:40].strip() for name in models], **settings)
        sign_in(page, server.url + "/arena/", login)
        page.locator("#concord.arena[data-view=work]").wait_for()
        return login

    return arena


def say(page: Any, text: str) -> None:
    page.locator("#words").fill(text)
    page.keyboard.press("Enter")


def faults(page: Any) -> list[str]:
    """What axe finds."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing").Axe()
    standards = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = axe.run(page, options={"runOnly": {"type": "tag", "values": standards}}).response["violations"]
    return [
        f"{one['id']}: {node['html'][:120]} {node['failureSummary'][:200]}" for one in found for node in one["nodes"]
    ]


def both_answered(page: Any, turns: int = 1) -> None:
    page.locator(".exchange").nth(turns - 1).wait_for()
    page.locator("#send:visible").wait_for(timeout=60_000)


def test_two_real_models_from_hello_to_their_names(arena: Callable, page: Any, place: tuple[House, Server]) -> None:
    login = arena("tiny-one", "tiny-two", all_bad=True, rationale="optional")
    assert page.locator("#verdict").is_hidden()
    say(page, "Say red.")
    both_answered(page)
    say(page, "Say tea.")
    both_answered(page, 2)
    assert page.locator(".reply .body").count() == 4
    html = page.content()
    assert "tiny-one" not in html and "tiny-two" not in html
    page.keyboard.press("Escape")  # out of the box: now keys are for the vote
    page.keyboard.press("6")
    page.keyboard.press("x")
    assert page.locator("#all-bad").get_attribute("aria-pressed") == "true"
    page.locator("#rationale").fill("Shorter.")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    page.locator("#revealed:visible").wait_for()
    house, _ = place
    (models,) = house.run("SELECT models FROM chats JOIN members ON members.id = member_id WHERE rater = ?", login)[0]
    assert page.locator("#models dd").all_inner_texts() == json.loads(models)
    assert page.locator(".exchange").first.locator(".model").all_inner_texts() == json.loads(models)
    assert "B clearly" in page.locator("#verdict-said").inner_text()
    (answer,) = house.answers(login)
    assert (answer["ranks"], answer["strength"], answer["flags"]) == ([2, 1], 2, ["all-bad"])
    page.reload()
    page.locator("#begin:visible").wait_for()
    assert page.locator(".exchange").count() == 0


def test_hostile_replies_are_only_text(arena: Callable, page: Any) -> None:
    arena("say:" + HTML, "say:**Bold** and `plain`.")
    say(page, "<img src=x onerror=\"document.title='owned'\">")
    both_answered(page)
    assert page.locator(".mine").inner_text().startswith("<img src=x")
    assert page.locator(".reply img, .reply script, .mine img").count() == 0
    assert page.locator(".reply strong").count() == 2
    assert "owned" not in page.title()


def test_a_side_that_fails_can_be_asked_again(arena: Callable, page: Any, world: Outside) -> None:
    arena("dies", "say:Hm.")
    say(page, "Hello?")
    page.locator(".reply.failed .sorry").wait_for()
    assert page.locator(".reply:not(.failed) .body").inner_text() == "Hm."
    assert page.locator("#verdict").is_hidden(), "one reply is nothing to compare"
    assert "ask again" in page.locator("#hint").inner_text() or page.locator("#hint").is_hidden()
    world.mended.add("dies")
    page.get_by_role("button", name="Ask again").click()
    both_answered(page)
    page.locator("#verdict:visible").wait_for()
    assert page.locator(".reply.failed").count() == 0


def test_a_reload_in_the_middle_loses_nothing(arena: Callable, page: Any, world: Outside) -> None:
    arena("waits:Left", "waits:Right")
    say(page, "Hello?")
    page.locator(".coming", has_text="Left").wait_for()
    page.locator("#words").fill("What I say next")
    page.reload()
    page.locator(".coming", has_text="Right").wait_for()
    assert page.locator("#words").input_value() == "What I say next"
    world.go_on.set()
    both_answered(page)
    assert sorted(page.locator(".reply .body").all_inner_texts()) == ["Left and so on.", "Right and so on."]
    assert (
        len([one for one in world.asked if one["messages"][-1]["content"] == "Hello?" and "waits" in one["model"]]) == 2
    )


def test_a_connection_that_breaks_is_taken_up_again(arena: Callable, page: Any, world: Outside) -> None:
    arena("waits:Left", "waits:Right")
    say(page, "Hello!")
    page.locator(".coming", has_text="Left").wait_for()
    page.context.set_offline(True)
    page.evaluate("window.dispatchEvent(new Event('offline'))")
    page.context.set_offline(False)
    world.go_on.set()
    both_answered(page)
    assert page.locator(".reply .body").count() == 2


def test_what_is_said_after_the_login_has_ended_is_kept(arena: Callable, page: Any, sign_in: Callable) -> None:
    login = arena("say:Hm.", "say:**Bold** and `plain`.")
    page.context.clear_cookies()
    held: list[Any] = []
    page.route("**/api/v1/me", lambda route: route.continue_() if held else held.append(route))
    say(page, "A long question, written with care")
    page.locator("#words").press_sequentially("And")
    held[0].continue_()
    page.get_by_role("link", name="Sign in again").wait_for()
    sign_in(page, page.url, login)
    page.locator("#concord.arena[data-view=work]").wait_for()
    assert page.locator("#words").input_value() == "A long question, written with care\n\nAnd"
    page.keyboard.press("Enter")
    both_answered(page)


def test_stop_keeps_what_is_shown(arena: Callable, page: Any) -> None:
    arena(LONG, "waits:Left")
    say(page, "Go on")
    page.locator(".coming", has_text="Left").wait_for()
    page.get_by_role("button", name="Stop").click()
    both_answered(page)
    texts = page.locator(".reply .body").all_inner_texts()
    assert len(texts) == 2 and max(map(len, texts)) < 20
    page.locator("#verdict:visible").wait_for()


def test_what_a_vote_needs_is_said(arena: Callable, page: Any) -> None:
    dimensions = [{"name": "helpful", "anchors": ["not", "very"]}]
    arena("say:Hm.", "say:**Bold** and `plain`.", rationale="required", dimensions=dimensions, strength=False)
    say(page, "Hello")
    both_answered(page)
    assert page.locator("#scale label").count() == 3
    hint = page.locator("#hint")
    assert hint.inner_text() == "Which one is better?"
    page.locator("#scale label").nth(0).click()
    assert hint.inner_text() == "Rate both on each line."
    page.locator(".dimension .steps").nth(0).locator("label").nth(1).click()
    page.locator(".dimension .steps").nth(1).locator("label").nth(0).click()
    assert hint.inner_text() == "Say in a few words why."
    page.locator("#rationale").fill("Because")
    page.reload()
    page.locator("#verdict:visible").wait_for()
    assert page.locator("#rationale").input_value() == "Because", "what is filled in is kept"
    page.get_by_role("button", name="Vote").click()
    page.locator("#revealed:visible").wait_for()
    page.get_by_role("button", name="New chat").last.click()
    page.locator("#begin:visible").wait_for()


def test_it_is_told_once_that_both_have_answered(arena: Callable, page: Any) -> None:
    arena("say:Hm.", "say:**Bold** and `plain`.")
    page.evaluate(
        "() => { window.said = []; new MutationObserver(() => said.push(document.querySelector('#told').textContent))"
        ".observe(document.querySelector('#told'), { childList: true }) }"
    )
    say(page, "Hello")
    both_answered(page)
    page.wait_for_function("said.includes('Both have answered.')")
    assert [words for words in page.evaluate("said") if words] == ["Both are answering.", "Both have answered."]
    assert page.locator("#talk [aria-live], #talk [role=status], #talk [role=log]").count() == 0


def test_a_server_without_the_models_says_so(place: tuple[House, Server], page: Any, sign_in: Callable) -> None:
    house, server = place
    login = house.project("elsewhere", arena=["tiny-one", "not-here"])
    sign_in(page, server.url + "/arena/", login)
    page.locator("#concord[data-view=stuck]").wait_for()
    assert "not set up on this server" in page.locator("#stuck-text").inner_text()
    assert "not-here" not in page.content()


def test_the_raters_page_leads_here(place: tuple[House, Server], page: Any, sign_in: Callable) -> None:
    house, server = place
    login = house.project("by-way-of-rate", arena=["tiny-one", "tiny-two"])
    sign_in(page, server.url + "/rate/", login)
    page.get_by_role("link", name="Go to the arena").click()
    page.locator("#concord.arena[data-view=work]").wait_for()


@pytest.mark.parametrize(
    ("width", "theme", "language"), [(1440, "light", "en"), (360, "dark", "en"), (768, "light", "ar")]
)
def test_how_it_looks(arena: Callable, page: Any, screenshots: Path, width: int, theme: str, language: str) -> None:
    """Nothing is wider than the window, what can be pressed is large enough, axe finds nothing; with pictures."""
    page.add_init_script(f"localStorage.setItem('concord:theme', '{theme}')")
    page.set_viewport_size({"width": width, "height": 800})
    arena("say:**Bold** and `plain`.", LONG, all_bad=True, rationale="optional")
    page.context.add_cookies([{"name": "concord_language", "value": language, "url": page.url}])
    page.reload()
    page.locator("#begin:visible").wait_for()
    page.screenshot(path=screenshots / f"arena-{width}-begin.png")
    assert not faults(page)
    say(page, "What is the difference between a cat and a dog?")
    page.locator(".coming", has_text="take their time").wait_for()
    page.screenshot(path=screenshots / f"arena-{width}-writing.png")
    both_answered(page)
    page.screenshot(path=screenshots / f"arena-{width}-vote.png")
    assert page.evaluate("document.querySelector('#concord').scrollWidth <= innerWidth")
    for button in page.locator("button:visible, #scale label:visible").all():
        box = button.bounding_box()
        assert box["height"] >= 24 and box["width"] >= 24, button.inner_text()
    assert not faults(page)
    page.locator("#scale label").nth(1).click()
    page.locator("#vote").click()
    page.locator("#revealed:visible").wait_for()
    assert not faults(page)
    page.screenshot(path=screenshots / f"arena-{width}-revealed.png")
    assert page.evaluate("document.querySelector('#concord').scrollWidth <= innerWidth")
