"""How a rater reads: side by side, as chat, together, folded, in any script; code to copy; what differs."""

import itertools
import json
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.annotate.conftest import Server
from tests.e2e.conftest import House

pytestmark = pytest.mark.browser

LONG = "\n\n".join(f"Paragraph {number}. " + "Word after word. " * 12 for number in range(30))
LONGER = "\n\n".join(f"Part {number}. " + "One more word. " * 12 for number in range(60))
MARKS = """name => [...(CSS.highlights.get(name) ?? [])].map(String)"""
TEXTS = ".response .text"


SCROLLS = """() => {
  const seen = [];
  addEventListener("scroll", (event) => seen.push(event.target), true);
  return seen;
}"""


def marked(page: Any, name: str) -> list[str]:
    return page.evaluate(MARKS, name)


def card(page: Any, text: str) -> Any:
    return page.locator(".response").filter(has_text=text)


def side(page: Any, text: str) -> str:
    """The name of the highlight of what only the response with this text has."""
    return "differs-one" if card(page, text).locator(".letter").inner_text() == "A" else "differs-other"


@pytest.fixture
def shows(page: Any, server: Server, house: House, begin: Callable, request: pytest.FixtureRequest) -> Callable:
    """Open the rater's page at these items."""

    def show(*items: dict[str, Any], **settings: Any) -> None:
        begin(page, server.url, house.project(re.sub(r"\W+", ".", request.node.name)[:60], *items, **settings))

    return show


# --- conversations, code, tables, scripts ---


def test_a_conversation_is_a_chat(page: Any, shows: Callable) -> None:
    turns = [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "Who wrote Faust?"},
        {"role": "assistant", "content": "Goethe."},
        {"role": "user", "content": "When?"},
    ]
    shows({"prompt": turns, "responses": ["1808", "1832"]})
    said = page.locator("#prompt .turn")
    assert said.locator(".who").all_inner_texts()[1:] == ["User", "Assistant", "User"]
    system = said.first
    assert not system.locator(".body").is_visible() and "Answer briefly." in system.locator("summary").inner_text()
    page.locator("#prompt").evaluate("box => box.scrollTo(0, 0)")
    system.locator("summary").focus()
    page.keyboard.press("Enter")  # opens it, and submits nothing
    assert system.locator(".body").is_visible()
    question, answer = said.nth(1).bounding_box(), said.nth(2).bounding_box()
    assert question["x"] > answer["x"]  # told apart by side, too
    assert page.locator(".response .who").count() == 0  # a single turn needs no name


def test_code_is_copied_by_a_button_of_ours(
    page: Any, house: House, shows: Callable, request: pytest.FixtureRequest
) -> None:
    code = "def f(x):\n    return x  # < & >"
    shows({"prompt": "Code?", "responses": [f"See:\n\n```python\n{code}\n```\n\nDone.", "none"]})
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tools = card(page, "See").locator(".code-tools")
    assert tools.locator("span").inner_text().lower() == "python"
    assert page.locator(".body button").count() == 0  # it stands outside of the text that the server has cleaned
    box, place = tools.bounding_box(), card(page, "See").locator("pre").bounding_box()
    assert abs(box["y"] - place["y"]) < 2 and abs(box["width"] - place["width"]) < 2
    page.keyboard.press("2")
    button = page.get_by_role("button", name=re.compile("Copy the python code", re.IGNORECASE))
    button.focus()
    page.keyboard.press("Enter")
    page.locator("#told").get_by_text("Copied").wait_for(state="attached")
    assert page.evaluate("navigator.clipboard.readText()").rstrip("\n") == code
    assert house.answers(request.node.name) == []  # it submits nothing
    page.set_viewport_size({"width": 700, "height": 800})
    page.wait_for_timeout(200)
    box, place = tools.bounding_box(), card(page, "See").locator("pre").bounding_box()
    assert abs(box["y"] - place["y"]) < 2 and abs(box["width"] - place["width"]) < 2


def test_tables_scroll_in_their_box(page: Any, shows: Callable) -> None:
    cells = " | ".join(f"a_long_identifier_{number}" for number in range(9))
    table = f"| {cells} |\n|{'---|' * 9}\n| {cells} |\n"
    page.set_viewport_size({"width": 360, "height": 740})
    shows({"prompt": "Table?", "responses": [table, "none"]})
    over = page.locator(".response table").evaluate("one => one.scrollWidth - one.clientWidth")
    assert over > 100
    assert page.evaluate("document.querySelector('#concord').scrollWidth") <= 360


def test_each_block_runs_in_the_direction_of_its_script(page: Any, shows: Callable) -> None:
    arabic = "عاصمة فرنسا هي باريس.\n\n* واحد\n* اثنان\n\nIn English: *Paris*.\n\n```\nx = 1\n```"
    shows({"prompt": "Paris?", "responses": [arabic, "English first.\n\nثم العربية."]})
    directions = "box => [...box.querySelectorAll('p, ul, pre')].map(one => getComputedStyle(one).direction)"
    assert card(page, "عاصمة").locator(".body").evaluate(directions) == ["rtl", "rtl", "ltr", "ltr"]
    assert card(page, "English first").locator(".body").evaluate(directions) == ["ltr", "rtl"]
    text, first = (card(page, "عاصمة").locator(part).first.bounding_box() for part in (".text", "p"))
    assert text["x"] + text["width"] - first["x"] - first["width"] < 40  # at the right edge, where it is looked for


# --- long texts ---


def test_long_responses_scroll_together(page: Any, shows: Callable) -> None:
    shows({"prompt": "Long?", "responses": [LONG, LONGER]}, {"prompt": "Next?", "responses": [LONG, LONGER]})
    share = "box => box.scrollTop / (box.scrollHeight - box.clientHeight)"
    one, other = page.locator(TEXTS).first, page.locator(TEXTS).last
    one.hover()
    page.mouse.wheel(0, 400)
    page.wait_for_timeout(300)
    assert one.evaluate(share) > 0 and other.evaluate(share) == 0  # one by one, until asked for
    page.keyboard.press("l")
    assert page.locator("#together").get_attribute("aria-pressed") == "true"
    assert other.evaluate(share) == pytest.approx(one.evaluate(share), abs=0.01)
    events = page.evaluate_handle(SCROLLS)
    for box in (other, one):
        box.hover()
        for _ in range(5):
            page.mouse.wheel(0, 150)
        page.wait_for_timeout(400)
        assert other.evaluate(share) == pytest.approx(one.evaluate(share), abs=0.01)
    settled = events.evaluate("seen => seen.length")
    page.wait_for_timeout(400)
    assert events.evaluate("seen => seen.length") == settled  # they don't push each other on
    one.focus()
    page.keyboard.press("End")
    page.wait_for_timeout(600)
    assert one.evaluate(share) == pytest.approx(1, abs=0.01) and other.evaluate(share) == pytest.approx(1, abs=0.01)
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    page.locator("#prompt").get_by_text("Next?").wait_for()
    page.locator(TEXTS).last.evaluate("box => box.scrollTo(0, 500)")
    page.wait_for_timeout(200)
    assert page.locator(TEXTS).first.evaluate("box => box.scrollTop") > 0  # still on, at the next item


@pytest.mark.parametrize("width", [1280, 360])
def test_a_long_response_can_be_shown_whole(page: Any, shows: Callable, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    shows({"prompt": "Long?", "responses": [LONG, "short"]})
    long = card(page, "Paragraph 0")
    inner = long.locator(".text")
    hides = "box => box.scrollHeight - box.clientHeight"
    assert inner.evaluate(hides) > 100 and card(page, "short").get_by_role("button", name="Show all").count() == 0
    long.get_by_role("button", name="Show all").click()
    assert inner.evaluate(hides) < 3
    assert long.get_by_role("button", name="Show less").get_attribute("aria-expanded") == "true"
    page.keyboard.press("2")  # the button has no hold on the keys
    assert page.locator("#scale input:checked").count() == 1
    long.get_by_role("button", name="Show less").click()
    assert inner.evaluate(hides) > 100


# --- what differs ---


def test_what_differs_is_marked_in_both(page: Any, shows: Callable, screenshots: Path) -> None:
    one, other = "The capital is **Paris**, on the Seine.", "The capital is **Lyon**, and it lies on the Rhône."
    shows({"prompt": "Capital?", "responses": [one, other]}, {"prompt": "Same?", "responses": ["just so"] * 2})
    before = page.locator(".response .body").evaluate_all("all => all.map(one => one.innerHTML)")
    page.keyboard.press("d")
    assert marked(page, side(page, "Paris")) == ["Paris", "Seine"]
    assert marked(page, side(page, "Lyon")) == ["Lyon", "and it lies", "Rhône"]
    said = page.locator("#differs-said").inner_text()
    letters = {name: card(page, name).locator(".letter").inner_text() for name in ("Paris", "Lyon")}
    assert f"Only in {letters['Paris']}: 2" in said and f"Only in {letters['Lyon']}: 5" in said
    page.screenshot(path=screenshots / "differs.png")
    page.keyboard.press("d")
    assert marked(page, "differs-one") == marked(page, "differs-other") == []
    assert page.locator("#differs-said").inner_text() == ""
    assert page.locator(".response .body").evaluate_all("all => all.map(one => one.innerHTML)") == before

    page.keyboard.press("d")
    page.keyboard.press("4")
    page.keyboard.press("Enter")
    page.locator("#differs-said").get_by_text("The texts are the same.").wait_for()  # stays on, for the next item


def test_what_cannot_be_seen_is_shown(page: Any, shows: Callable) -> None:
    one, other = "ten thousand and\n\n```\na  b\n```", "ten\u00a0thousand and\n\n```\na\tb\n```"
    shows({"prompt": "Same?", "responses": [one, other]})
    texts = "all => all.map(one => one.textContent)"
    before = page.locator(".response .body").evaluate_all(texts)
    page.keyboard.press("d")
    page.locator("#differs-said").get_by_text("The words are the same.").wait_for()
    page.locator("#differs-said").get_by_text("Differences that can't be seen: 2").wait_for()
    signs = "all => all.map(one => one.dataset.sign).sort()"
    assert page.locator(".cannot-see").evaluate_all(signs) == sorted(["␣", "NBSP", "␣␣", "⇥"])
    assert page.locator(".response .body").evaluate_all(texts) == before  # signs are no part of the text
    page.keyboard.press("d")
    assert page.locator(".cannot-see").count() == 0


def test_of_three_each_is_compared_with_the_one_at_hand(page: Any, shows: Callable) -> None:
    shows({"prompt": "Colour?", "responses": ["a red house", "a blue house", "a green tree"]})
    page.keyboard.press("Shift+D")
    letters = {name: card(page, name).locator(".letter").inner_text() for name in ("red", "blue", "green")}
    for name, only in {"red": "red", "blue": "blue", "green": "green tree"}.items():
        page.keyboard.press(letters[name])
        page.locator("#differs-said").get_by_text(f"Compared with {letters[name]}:").wait_for()
        assert marked(page, "differs-one") == [only]
        assert {other for other in letters if other != name} <= set(" ".join(marked(page, "differs-other")).split())


def test_long_texts_are_compared_at_once(page: Any, shows: Callable) -> None:
    words = [f"word{number % 700}" for number in range(2600)]
    near = " ".join(word if index % 17 else f"other{index}" for index, word in enumerate(words))
    far = " ".join(f"new{number % 900}" for number in range(2600))
    text = " ".join(words)
    assert len(text) > 18_000
    shows({"prompt": "Long?", "responses": [text, near]}, {"prompt": "Far?", "responses": [text, far]})
    took = """() => {
      const from = performance.now();
      document.querySelector("#differs").click();
      return performance.now() - from;
    }"""
    for prompt in ("Long?", "Far?"):
        page.locator("#prompt").get_by_text(prompt).wait_for()
        milliseconds = page.evaluate(took)
        print(f"\n{prompt} marked in {milliseconds:.0f} ms")
        assert milliseconds < 1500
        page.locator("#differs").click()
        page.locator("#prompt").focus()
        page.keyboard.press("4")
        page.keyboard.press("Enter")


COMMON = """async ([cases]) => {
  const { common } = await import("/static/rate/diff.js");
  return cases.map(([one, other]) => common(one, other));
}"""


def test_what_lists_have_in_common_is_the_longest_there_is(
    page: Any, server: Server, pairs: str, begin: Callable
) -> None:
    """Against the table of all prefixes, which is exact and slow."""
    begin(page, server.url, pairs)
    rng = random.Random(7)
    cases = []
    for _ in range(300):
        letters = "abcd"[: rng.randint(1, 4)]
        cases.append([[rng.choice(letters) for _ in range(rng.randint(0, 14))] for _ in range(2)])
    for (one, other), found in zip(cases, page.evaluate(COMMON, [cases]), strict=True):
        assert all(one[i] == other[j] for i, j in found), json.dumps([one, other])
        assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(found))
        best = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
        for i in range(len(one)):
            for j in range(len(other)):
                same = one[i] == other[j]
                best[i + 1][j + 1] = best[i][j] + 1 if same else max(best[i][j + 1], best[i + 1][j])
        assert len(found) == best[-1][-1], json.dumps([one, other])
    began = time.monotonic()
    many = [[f"a{number}" for number in range(30_000)], [f"b{number}" for number in range(30_000)]]
    assert page.evaluate(COMMON, [[many]]) == [[]]
    assert time.monotonic() - began < 10  # bounded, where nothing is alike
