"""An hour's work by keyboard alone: all answers stored as they were pressed, and a page that grows no heavier."""

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.annotate.conftest import Server
from tests.e2e.conftest import House

pytestmark = pytest.mark.browser

MANY = [15, pytest.param(60, marks=pytest.mark.slow)]  # answers; the short form is as strict, and shows no slow leak
WARM = 5  # answers after which the page is weighed for the first time
READS = 1.2  # seconds that the rater looks at every tenth item

# Counts the keys that go down, whatever the page makes of them.
COUNT_KEYS = "window.pressed = 0; addEventListener('keydown', () => window.pressed++, true)"
FOCUS = """() => {
  const here = document.activeElement;
  if (here === document.body) return "body";
  return here?.closest("#concord") && here.getClientRects().length ? "page" : `lost: ${here?.outerHTML}`;
}"""


class Hour:
    """Somebody who answers item after item by keyboard, and remembers what should be stored."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.dice = random.Random("an hour")
        self.given: list[dict[str, Any]] = []
        self.keys = 0
        self.since = time.monotonic()  # when the item on the screen can have come at the earliest
        self.longest: list[float] = []  # seconds that each item can have been there at most
        self.weights: list[dict[str, float]] = []
        self.devtools = page.context.new_cdp_session(page)
        self.devtools.send("Performance.enable")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
            self.keys += 1

    def work(self, items: int, answer: Callable[[list[int]], dict[str, Any]]) -> None:
        for number in range(items):
            name, order = self.read()
            assert name not in {one["item"] for one in self.given}
            if number % 10 == 3:
                self.page.wait_for_timeout(1000 * READS)
            self.given.append({"item": name, "revision": 1, "flags": [], **answer(order)})
            if number == WARM:
                self.weigh()
            before = time.monotonic()
            self.press("Enter")
            self.longest.append(time.monotonic() - self.since)
            self.since = before
            self.page.wait_for_function(
                "name => document.querySelector('#prompt').textContent !== name"
                " || document.querySelector('#concord').dataset.view === 'done'",
                arg=f"Item {name}?",
            )
            assert self.page.evaluate(FOCUS) in ("body", "page")
            if number == items - 2:
                self.weigh()
        self.page.get_by_role("heading", name="All done").wait_for()

    def read(self) -> tuple[str, list[int]]:
        """The item on the screen by its key, and which of its responses stands at each place."""
        self.page.locator("#concord[data-view=work]:not(.busy)").wait_for()
        prompt = self.page.locator("#prompt .body").inner_text().strip()
        shown = self.page.locator(".response .body").all_inner_texts()
        return prompt.removeprefix("Item ").removesuffix("?"), [int(text.split()[-1]) for text in shown]

    def weigh(self) -> None:
        self.devtools.send("HeapProfiler.collectGarbage")
        metrics = {one["name"]: one["value"] for one in self.devtools.send("Performance.getMetrics")["metrics"]}
        elements = self.page.evaluate("document.querySelectorAll('*').length")
        self.weights.append({name: metrics[name] for name in ("Nodes", "JSEventListeners", "JSHeapUsedSize")})
        self.weights[-1]["elements"] = elements

    def is_as_light_as_before(self) -> None:
        before, after = self.weights
        assert abs(after["elements"] - before["elements"]) <= 20, (before, after)
        assert after["Nodes"] - before["Nodes"] <= 300, (before, after)
        assert after["JSEventListeners"] - before["JSEventListeners"] <= 30, (before, after)
        assert after["JSHeapUsedSize"] - before["JSHeapUsedSize"] <= 3e6, (before, after)


def times_are_plausible(house: House, login: str, hour: Hour) -> None:
    """The seconds stored are those that the rater had the item before their eyes, and none besides."""
    query = "SELECT seconds FROM answers JOIN members ON members.id = member_id WHERE rater = ? ORDER BY answers.id"
    stored = [seconds for (seconds,) in house.run(query, login)]
    for number, (seconds, most) in enumerate(zip(stored, hour.longest, strict=True)):
        least = READS - 0.1 if number % 10 == 3 else 0
        assert least <= seconds <= most + 0.1, (number, seconds, most)
    assert sum(stored[1:]) >= 0.4 * sum(hour.longest[1:])  # before the first there was the login


def items(number: int, responses: int) -> list[dict[str, Any]]:
    return [
        {"id": f"n{n}", "prompt": f"Item n{n}?", "responses": [f"This is response {k}" for k in range(responses)]}
        for n in range(number)
    ]


@pytest.mark.parametrize("number", MANY)
def test_an_hour_of_pairs(page: Any, server: Server, house: House, begin: Callable, number: int) -> None:
    login = house.project(f"hour-of-pairs-{number}", *items(number, 2))
    page.add_init_script(COUNT_KEYS)
    hour = Hour(page)
    begin(page, server.url, login)

    def answer(order: list[int]) -> dict[str, Any]:
        step = 1 + 3 * len(hour.given) % 7  # each in turn
        hour.press(str(step))
        strength = (step - 4) * (1 if order == [0, 1] else -1)
        return {"ranks": [1, 2] if strength < 0 else [2, 1] if strength > 0 else [1, 1], "strength": strength}

    typed = page.evaluate("window.pressed")
    hour.work(number, answer)
    assert page.evaluate("window.pressed") - typed == hour.keys == 2 * number
    assert house.answers(login) == hour.given
    assert {abs(one["strength"]) for one in hour.given} == {0, 1, 2, 3}
    hour.is_as_light_as_before()
    times_are_plausible(house, login, hour)


@pytest.mark.parametrize("number", MANY)
def test_an_hour_of_four_ways(page: Any, server: Server, house: House, begin: Callable, number: int) -> None:
    login = house.project(f"hour-of-four-ways-{number}", *items(number, 4))
    page.add_init_script(COUNT_KEYS)
    hour = Hour(page)
    begin(page, server.url, login)

    def answer(order: list[int]) -> dict[str, Any]:
        shown = [hour.dice.randint(1, 4) for _ in order]
        shown[hour.dice.randrange(4)] = 1
        hour.press(*map(str, shown))
        if hour.dice.random() < 0.2:  # a second thought
            place = hour.dice.randrange(4)
            shown = [1 if here == place else max(2, rank) for here, rank in enumerate(shown)]
            for here, rank in enumerate(shown):
                hour.press("ABCD"[here], str(rank))
        strength = 0
        if shown.count(1) == 1:
            strength = hour.dice.randint(1, 3)
            hour.press(str(strength))
        used = sorted(set(shown))  # gaps are closed, so that keys and the board give the same answer
        ranks = [used.index(shown[order.index(response)]) + 1 for response in range(4)]
        return {"ranks": ranks, "strength": strength}

    typed = page.evaluate("window.pressed")
    hour.work(number, answer)
    assert page.evaluate("window.pressed") - typed == hour.keys
    assert house.answers(login) == hour.given
    assert {one["strength"] for one in hour.given} == {0, 1, 2, 3}
    hour.is_as_light_as_before()
    times_are_plausible(house, login, hour)
