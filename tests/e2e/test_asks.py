"""What a project asks for beside the ranking: by keys, by mouse, by touch; what arrives is what was done."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.annotate.conftest import Annotate, Server
from tests.e2e.conftest import House

pytestmark = pytest.mark.browser

DIMENSIONS = [
    {"name": "helpful", "anchors": ["useless", "", "fine", "", "just right"]},
    {"name": "safe", "anchors": ["<b>harmful</b>", "", "harmless"]},
]
EVERYTHING: dict[str, Any] = {
    "dimensions": DIMENSIONS,
    "all_bad": True,
    "rationale": "required",
    "edit": True,
    "spans": True,
}
FOUR = ["zeroth", "first", "second", "third"]
RANKS = {"zeroth": 3, "first": 1, "second": 2, "third": 2}


def pair(*, first: str = "Paris 🗼 is it.", second: str = "It is **Lyon**.") -> dict[str, Any]:
    return {"prompt": "Which city?", "responses": [first, second]}


def shown(page: Any) -> list[str]:
    """What the responses say, in the order on the screen."""
    return page.locator(".response .body").all_inner_texts()


def letters(page: Any) -> dict[str, str]:
    """{what a response says: its letter}"""
    return dict(zip(shown(page), "ABCDEFGHI", strict=False))


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def stored(house: House, login: str) -> list[dict[str, Any]]:
    """A rater's answers as the database has them, the oldest first, in the order of the import."""
    columns = ("revision", "ranks", "strength", "ratings", "flags", "spans", "rationale", "edited")
    rows = house.run(
        "SELECT revision, ranks, strength, ratings, flags, spans, rationale, edited FROM answers"
        " JOIN members ON members.id = member_id LEFT JOIN answer_texts ON answer_id = answers.id"
        " WHERE rater = ? ORDER BY answers.id",
        login,
    )
    answers = [dict(zip(columns, row, strict=True)) for row in rows]
    for answer in answers:
        for name in ("ranks", "ratings", "flags", "spans", "edited"):
            answer[name] = json.loads(answer[name]) if answer[name] else None
    return answers


def submit(page: Any) -> None:
    press(page, "Enter")
    page.get_by_text("Saved ✓").wait_for()


def told(page: Any, words: str) -> None:
    """Wait until a screen reader has been told it."""
    page.locator("#told").get_by_text(words).wait_for(state="attached")


@pytest.fixture
def phone(browser: Any) -> Iterator[Any]:
    """A page on a screen of 360 px that is touched."""
    context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    context.set_default_timeout(15000)
    page = context.new_page()
    trouble: list[str] = []
    page.on("pageerror", lambda error: trouble.append(str(error)))
    yield page
    context.close()
    assert trouble == []


# --- what is not asked for is not there ---------------------------------------------------------------------------


def test_a_plain_project_is_two_key_presses(page: Any, server: Server, house: House, begin: Callable) -> None:
    login = house.project("asks-plain", pair(), pair())
    begin(page, server.url, login)
    assert page.locator("#panel").is_hidden()
    assert page.get_by_role("button", name="All bad").count() == 0
    assert page.get_by_role("button", name="Board").count() == page.get_by_role("button", name="More").count() == 0
    for key in ("x", "w", "e", "m", "p", "k"):
        press(page, key)  # nothing of this is there
    assert page.locator("#panel").is_hidden() and page.locator(".writer, .marker").count() == 0
    page.evaluate("window.presses = 0; addEventListener('keydown', () => window.presses++, true)")
    for _ in range(2):
        press(page, "2", "Enter")
    page.get_by_role("heading", name="All done").wait_for()
    assert page.evaluate("window.presses") == 4
    answers = stored(house, login)
    assert len(answers) == 2
    assert all(answer[name] is None for answer in answers for name in ("ratings", "spans", "rationale", "edited"))


# --- the board ----------------------------------------------------------------------------------------------------


def ranked_by_keys(page: Any, wanted: dict[str, int]) -> None:
    for text in shown(page):
        press(page, str(wanted[text]))


def ranked_by_arrows(page: Any, wanted: dict[str, int]) -> None:
    press(page, "k")
    assert page.evaluate("document.activeElement.classList.contains('board-card')")
    for text, letter in letters(page).items():
        press(page, letter)  # the focus goes to its card
        name = page.evaluate("document.activeElement.getAttribute('aria-label')")
        assert name == f"Response {letter}. {letter}: no rank yet."
        for _ in range(len(wanted) + 1 - wanted[text]):
            press(page, "ArrowUp")
        told(page, f"{letter}: rank {wanted[text]}")


def ranked_by_digits_on_the_board(page: Any, wanted: dict[str, int]) -> None:
    press(page, "k")
    for text in shown(page):
        press(page, str(wanted[text]))  # the focus goes on to the next card by itself


def card(page: Any, text: str) -> Any:
    return page.locator(".board-card").filter(has_text=text)


def row(page: Any, rank: int) -> Any:
    return page.locator(f".rank[data-rank='{rank}']")


def middle(box: dict[str, float]) -> tuple[float, float]:
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def ranked_by_mouse(page: Any, wanted: dict[str, int]) -> None:
    page.get_by_role("button", name="Board").click()
    for text, rank in wanted.items():
        page.mouse.move(*middle(card(page, text).bounding_box()))
        page.mouse.down()
        page.mouse.move(*middle(row(page, rank).bounding_box()), steps=5)
        assert row(page, rank).evaluate("row => row.classList.contains('over')")
        page.mouse.up()


def ranked_by_clicks(page: Any, wanted: dict[str, int]) -> None:
    page.get_by_role("button", name="Board").click()
    for text, rank in wanted.items():
        card(page, text).click()
        row(page, rank).locator(".number").click()


@pytest.mark.parametrize(
    "way", [ranked_by_keys, ranked_by_arrows, ranked_by_digits_on_the_board, ranked_by_mouse, ranked_by_clicks]
)
def test_board_and_keys_give_the_same_answer(
    page: Any, server: Server, house: House, begin: Callable, way: Callable
) -> None:
    login = house.project(f"asks-{way.__name__}", {"prompt": "Count!", "responses": FOUR})
    begin(page, server.url, login)
    way(page, RANKS)
    assert page.locator("#scale").is_enabled()
    checked = {
        text: int(page.locator(".response").filter(has_text=text).locator(".ranks :checked").get_attribute("value"))
        for text in FOUR
    }
    assert checked == RANKS  # and the keys show what the board shows
    press(page, "3", "Enter")
    page.get_by_role("heading", name="All done").wait_for()
    [answer] = stored(house, login)
    assert (answer["ranks"], answer["strength"]) == ([3, 1, 2, 2], 3)


def test_a_finger_drags_on_the_board(
    phone: Any, server: Server, house: House, begin: Callable, screenshots: Path
) -> None:
    login = house.project("asks-touch", {"prompt": "Count!", "responses": FOUR})
    begin(phone, server.url, login)
    phone.locator("#board-fold").tap()
    phone.locator("#board-rows").scroll_into_view_if_needed()
    finger = phone.context.new_cdp_session(phone)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        finger.send(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]}
        )

    for text, rank in RANKS.items():
        card(phone, text).scroll_into_view_if_needed()
        x, y = middle(card(phone, text).bounding_box())
        to_x, to_y = middle(row(phone, rank).bounding_box())
        touch("touchStart", (x, y))
        for step in range(1, 7):
            touch("touchMove", (x + (to_x - x) * step / 6, y + (to_y - y) * step / 6))
            phone.wait_for_timeout(20)  # no finger is faster: Chromium takes what is for a fling, and no tap after it
        touch("touchEnd")
    phone.screenshot(path=screenshots / "board-touch.png")
    phone.wait_for_timeout(600)
    phone.get_by_role("radio", name="clearly better").tap()
    phone.locator("#submit").tap()
    phone.get_by_role("heading", name="All done").wait_for()
    [answer] = stored(house, login)
    assert (answer["ranks"], answer["strength"]) == ([3, 1, 2, 2], 2)


def test_ranks_that_leave_numbers_out_are_counted_on(page: Any, server: Server, house: House, begin: Callable) -> None:
    login = house.project("asks-gaps", {"prompt": "Count!", "responses": FOUR[:3]}, strength=False)
    begin(page, server.url, login)
    wanted = {"zeroth": 2, "first": 3, "second": 3}
    ranked_by_keys(page, wanted)
    best = letters(page)["zeroth"]
    assert page.locator("#hint").inner_text().startswith(f"{best}, then ")
    press(page, "Enter")
    page.get_by_role("heading", name="All done").wait_for()
    assert stored(house, login)[0]["ranks"] == [1, 2, 2]


def test_nine_responses_keep_every_key(page: Any, server: Server, house: House, begin: Callable) -> None:
    """Letters of responses and letters of what the page can do: with Shift a letter is always the page's."""
    nine = {"prompt": "Nine?", "responses": [f"text {n}" for n in range(9)]}
    login = house.project("asks-nine", nine, edit=True, strength=False)
    begin(page, server.url, login)
    assert page.locator("#flag-open kbd").inner_text() == "⇧F" and page.locator("#skip-open kbd").inner_text() == "S"
    press(page, "f", "1")
    ranked = page.locator(".response").nth(5).locator(".ranks :checked")
    assert ranked.get_attribute("value") == "1"
    press(page, "Shift+F")
    page.locator("#flag[open]").wait_for()
    press(page, "2", "Enter", "k")
    page.get_by_role("button", name="Flag (1)").wait_for()
    order = shown(page)
    for number, letter in enumerate("ABCDEFGHI"):
        press(page, letter.lower(), str(9 - number))
    assert page.locator(".rank .board-card .letter").all_inner_texts() == list("IHGFEDCBA")
    press(page, "ArrowDown", "ArrowDown")  # the last one ranked
    told(page, "I: rank 3, tied with G.")
    press(page, "ArrowUp", "ArrowUp", "Enter")
    page.get_by_role("heading", name="All done").wait_for()
    [answer] = stored(house, login)
    assert answer["ranks"] == [9 - order.index(f"text {n}") for n in range(9)] and answer["flags"] == ["broken"]


def test_keys_of_other_layouts(page: Any, server: Server, house: House, begin: Callable) -> None:
    """An Arabic layout writes an Arabic letter for F, a French one é for 2: keys are known by their place."""
    login = house.project("asks-layouts", pair())
    begin(page, server.url, login)
    strike = "([key, code]) => document.body.dispatchEvent(new KeyboardEvent('keydown', {key, code, bubbles: true}))"
    page.evaluate(strike, ["é", "Digit2"])
    assert page.locator("#scale :checked").get_attribute("value") == "-2"
    page.evaluate(strike, ["ب", "KeyF"])
    page.locator("#flag[open]").wait_for()


# --- ratings ------------------------------------------------------------------------------------------------------


def test_ratings_by_keys_follow_the_verdict(
    page: Any, server: Server, house: House, begin: Callable, screenshots: Path
) -> None:
    login = house.project("asks-ratings", pair(), pair(), dimensions=DIMENSIONS)
    begin(page, server.url, login)
    assert page.locator(".anchors").first.inner_text().split("\n") == ["1 useless", "3 fine", "5 just right"]
    assert page.locator(".anchors").last.locator("li").first.inner_text() == "1 <b>harmful</b>"  # text, not HTML
    press(page, "3")
    press(page, "Enter")
    told(page, "Rate response A: helpful.")  # what is missing is said, and nothing is sent
    assert page.locator("#count").inner_text().startswith("0 of")
    assert page.locator(".rate.current").get_attribute("data-field") == "rating-0-0"
    press(page, "4")
    told(page, "A, helpful: 4. Rate response B: helpful.")
    press(page, "5")
    told(page, "B, helpful: 5, just right. Rate response A: safe.")
    press(page, "9")  # there is no such step
    assert page.locator("#ratings-title").inner_text() == "Ratings: 2 of 4"
    press(page, "Backspace", "Backspace", "2")  # back to A's, which becomes 2
    press(page, "1", "3")
    told(page, "Enter submits.")
    page.screenshot(path=screenshots / "ratings.png")
    first = shown(page)[0].startswith("Paris")
    submit(page)

    helpful, safe = ([2, 5], [1, 3]) if first else ([5, 2], [3, 1])
    assert stored(house, login)[0]["ratings"] == {"helpful": helpful, "safe": safe}

    paris = letters(page)[next(text for text in shown(page) if text.startswith("Paris"))]
    page.get_by_role("radio", name="Same").click()
    for name in ("helpful", "safe"):
        for letter in "AB":
            steps = page.get_by_role("radiogroup", name=f"Response {letter}: {name}")
            steps.get_by_role("radio").nth(2 if letter == paris else 0).click()
    press(page, "Enter")
    page.get_by_role("heading", name="All done").wait_for()
    assert stored(house, login)[1]["ratings"] == {"helpful": [3, 1], "safe": [3, 1]}


# --- all bad, rationale -------------------------------------------------------------------------------------------


def test_all_bad_and_a_reason_that_must_be_given(page: Any, server: Server, house: House, begin: Callable) -> None:
    login = house.project("asks-why", pair(), all_bad=True, rationale="required")
    begin(page, server.url, login)
    press(page, "x")
    told(page, "All bad: none of the responses is good enough.")
    assert page.get_by_role("button", name="All bad").get_attribute("aria-pressed") == "true"
    assert page.locator("#flag-count").inner_text() == ""
    press(page, "f", "1", "Enter")  # the dialog of flags leaves it alone
    page.get_by_role("button", name="Flag (1)").wait_for()
    press(page, "5", "Enter")
    told(page, "Say in a few words why.")
    assert page.evaluate("document.activeElement.id") == "rationale"
    assert page.locator("#count").inner_text().startswith("0 of")
    page.keyboard.type("x 1 f s u: both are\n")
    press(page, "Enter")
    page.keyboard.type("wrong.")
    assert page.locator("dialog[open]").count() == 0 and page.locator("#scale :checked").get_attribute("value") == "1"
    press(page, "Control+Enter")
    assert page.evaluate("document.activeElement.id") == "submit"
    assert page.locator("#count").inner_text().startswith("0 of")  # that went back to the keys, and no further
    press(page, "7", "w", "End", "!", "Escape", "Enter")
    page.get_by_role("heading", name="All done").wait_for()
    [answer] = stored(house, login)
    assert answer["flags"] == ["unsafe", "all-bad"]
    assert answer["rationale"] == "x 1 f s u: both are\n\nwrong.!"


def test_a_reason_that_may_be_given_stays_out_of_the_way(
    page: Any, server: Server, house: House, begin: Callable
) -> None:
    login = house.project("asks-maybe", pair(), pair(), pair(), rationale="optional")
    begin(page, server.url, login)
    assert page.locator("#panel").is_hidden()
    press(page, "2")
    submit(page)
    press(page, "w")
    page.keyboard.type("   ")
    press(page, "Escape", "2", "Enter")
    page.locator("#count").get_by_text("2 of").wait_for()
    assert page.locator("#panel").is_visible()  # as the rater left it
    press(page, "p")
    assert page.locator("#panel").is_hidden()
    page.reload()
    page.locator("#concord[data-view=work]").wait_for()
    assert page.locator("#panel").is_hidden()
    press(page, "2", "Enter")
    page.get_by_role("heading", name="All done").wait_for()
    assert [answer["rationale"] for answer in stored(house, login)] == [None, None, None]


# --- marks --------------------------------------------------------------------------------------------------------

HIGHLIGHTED = """() => ["good", "bad"].map((kind) => "highlights" in CSS
  ? [...(CSS.highlights.get("concord-" + kind) ?? [])].map(String)
  : [...document.querySelectorAll(`mark[data-mark=${kind}]`)].map((mark) => mark.textContent))"""


def select(page: Any, text: str, passage: str) -> None:
    """Select by mouse, from the first character of a passage to its last."""
    found = page.locator(".response").filter(has_text=text).locator(".text")
    box = found.evaluate(
        """(text, passage) => {
            const body = text.querySelector(".body");
            const from = body.textContent.indexOf(passage);
            const place = (units) => {
              const walker = document.createTreeWalker(body, NodeFilter.SHOW_TEXT);
              while (walker.nextNode() && units > walker.currentNode.length) units -= walker.currentNode.length;
              return [walker.currentNode, units];
            };
            const range = document.createRange();
            range.setStart(...place(from));
            range.setEnd(...place(from + passage.length));
            const { left, right, top, bottom } = range.getBoundingClientRect();
            return { left, right, y: (top + bottom) / 2 };
        }""",
        passage,
    )
    page.mouse.move(box["left"] + 0.5, box["y"])
    page.mouse.down()
    page.mouse.move(box["right"] - 0.5, box["y"], steps=4)
    page.mouse.up()


@pytest.mark.parametrize("highlights", [True, False])
def test_passages_are_marked_by_mouse(
    page: Any, server: Server, house: House, begin: Callable, screenshots: Path, highlights: bool
) -> None:
    login = house.project(f"asks-marks-{highlights}", pair(), spans=True)
    if not highlights:
        page.add_init_script("delete CSS.highlights")
    begin(page, server.url, login)
    select(page, "Paris", "🗼 is")
    page.get_by_role("toolbar", name="Mark what is selected").get_by_role("button", name="Good").click()
    told(page, "Marked as good: “🗼 is”")
    assert page.get_by_role("toolbar").count() == 0
    select(page, "Lyon", "Lyon")
    page.get_by_role("button", name="Bad").click()
    assert page.evaluate(HIGHLIGHTED) == [["🗼 is"], ["Lyon"]]
    select(page, "Paris", "is it")
    page.get_by_role("button", name="Good").click()  # overlaps the first: one mark
    assert page.evaluate(HIGHLIGHTED) == [["🗼 is it"], ["Lyon"]]
    press(page, "p")
    assert page.locator("#mark-list li").count() == 2
    page.screenshot(path=screenshots / f"marks-{highlights}.png")
    select(page, "Lyon", "It is")
    page.get_by_role("button", name="Good").click()
    page.get_by_role("button", name="Remove the mark “It is”").click()
    select(page, "Lyon", "Lyon")
    page.get_by_role("button", name="Remove Del").click()
    assert page.evaluate(HIGHLIGHTED) == [["🗼 is it"], []]
    select(page, "Lyon", "Lyon")
    page.get_by_role("button", name="Bad").click()
    press(page, "4", "Enter")
    page.get_by_role("heading", name="All done").wait_for()
    spans = sorted(stored(house, login)[0]["spans"], key=lambda span: span["response"])
    assert spans == [
        {"response": 0, "start": 6, "end": 13, "text": "🗼 is it", "mark": "good"},
        {"response": 1, "start": 6, "end": 10, "text": "Lyon", "mark": "bad"},
    ]


def test_passages_are_marked_by_keys(page: Any, server: Server, house: House, begin: Callable) -> None:
    text = "One two 🗼 three. Four five six.\n\n* seven\n* eight"
    login = house.project("asks-mark-keys", pair(first=text, second="Nine ten."), spans=True)
    begin(page, server.url, login)
    first = letters(page)["Nine ten."] == "B"
    if not first:
        press(page, "m", "2")  # a digit goes to a response
    else:
        press(page, "m")
    letter = "A" if first else "B"
    told(page, f"{letter}: “One”")
    press(page, "ArrowRight", "Shift+ArrowRight")
    told(page, f"{letter}: “two 🗼 three”")
    press(page, "g")
    told(page, "Marked as good: “two 🗼 three”")
    press(page, "m")  # goes on behind it
    told(page, f"{letter}: “Four”")
    press(page, "ArrowDown", "ArrowDown")
    told(page, f"{letter}: “eight”")
    press(page, "b")
    press(page, "m", "ArrowLeft", "ArrowLeft", "Escape")
    assert page.get_by_role("toolbar").count() == 0
    press(page, "m", "1" if not first else "2")
    told(page, "“Nine”")
    press(page, "Shift+ArrowDown")
    told(page, "“Nine ten.”")
    press(page, "Tab", "Enter")  # the button for bad
    told(page, "Marked as bad: “Nine ten.”")
    press(page, "3", "Enter")
    page.get_by_role("heading", name="All done").wait_for()
    visible = "One two 🗼 three. Four five six.\n\nseven\neight\n"
    spans = stored(house, login)[0]["spans"]
    assert [(span["response"], span["text"], span["mark"]) for span in spans] == [
        (0, "two 🗼 three", "good"),
        (0, "eight", "bad"),
        (1, "Nine ten.", "bad"),
    ]
    assert all(span["text"] == visible[span["start"] : span["end"]] for span in spans if span["response"] == 0), spans


def test_a_finger_marks(phone: Any, server: Server, house: House, begin: Callable, screenshots: Path) -> None:
    login = house.project("asks-mark-touch", pair(), spans=True)
    begin(phone, server.url, login)
    body = phone.locator(".response").filter(has_text="Lyon").locator("strong")
    body.scroll_into_view_if_needed()
    # A long press selects the word; headless Chromium has none, so the selection that it makes is made here.
    body.evaluate("word => getSelection().selectAllChildren(word)")
    phone.get_by_role("button", name="Bad").wait_for()
    phone.screenshot(path=screenshots / "marks-touch.png")
    bar = phone.locator(".marker").bounding_box()
    assert bar["x"] >= 0 and bar["x"] + bar["width"] <= 360
    phone.get_by_role("button", name="Bad").tap()
    told(phone, "Marked as bad: “Lyon”")
    phone.get_by_role("radio", name="Same").tap()
    phone.locator("#submit").tap()
    phone.get_by_role("heading", name="All done").wait_for()
    assert [span["text"] for span in stored(house, login)[0]["spans"]] == ["Lyon"]


# --- rewriting ----------------------------------------------------------------------------------------------------


def test_the_best_response_is_rewritten(
    page: Any, server: Server, house: House, begin: Callable, screenshots: Path
) -> None:
    login = house.project("asks-edit", pair(), pair(), pair(), edit=True)
    begin(page, server.url, login)
    press(page, "e")
    told(page, "Rank the responses first")
    lyon = letters(page)["It is Lyon."]
    press(page, "1" if lyon == "A" else "7", "e")
    field = page.get_by_label(f"Your version of response {lyon}")
    assert field.input_value() == "It is **Lyon**."  # its source, not what is seen of it
    assert page.locator(".response:visible").count() == 1
    press(page, "Control+Enter", "Enter")  # unchanged: no edit
    page.locator("#count").get_by_text("1 of").wait_for()

    lyon = letters(page)["It is Lyon."]
    press(page, "1" if lyon == "A" else "7", "e", "Control+End")
    page.keyboard.type(" Really: 1, x, s!")
    page.get_by_text("Kept ✓").wait_for()
    page.screenshot(path=screenshots / "rewrite.png")
    press(page, "Escape")
    page.get_by_text("Rewritten ✓").wait_for()
    assert page.locator(".response:visible").count() == 2
    press(page, "Enter")
    page.locator("#count").get_by_text("2 of").wait_for()

    press(page, "4", "p")  # a tie: the rater chooses
    lyon = letters(page)["It is Lyon."]
    assert page.locator("#rewrite-tip").inner_text() == "A and B are equally good: choose which one."
    page.get_by_role("button", name=f"Rewrite {'AB'.replace(lyon, '')}").click()
    page.keyboard.type("Oh. ")
    page.get_by_role("button", name=f"Rewrite {lyon} instead").click()
    page.keyboard.type("No. ")
    page.get_by_role("button", name="Done").click()
    page.get_by_role("button", name="Take back").click()
    told(page, "The rewrite is taken back.")
    page.get_by_role("button", name=f"Rewrite {lyon}").click()
    page.keyboard.type("Well. ")
    press(page, "Escape", "Enter")
    page.get_by_role("heading", name="All done").wait_for()
    assert [answer["edited"] for answer in stored(house, login)] == [
        None,
        {"response": 1, "text": "It is **Lyon**. Really: 1, x, s!"},
        {"response": 1, "text": "Well. It is **Lyon**."},
    ]


# --- drafts, undo -------------------------------------------------------------------------------------------------


def test_everything_survives_and_comes_back(page: Any, tmp_path: Path, begin: Callable, screenshots: Path) -> None:
    """A reload, another machine, a restart of the server; then undo, and an answer that changes one thing."""
    annotate = Annotate(tmp_path)
    house = House(annotate)
    login = house.project("kept", {"prompt": "Count!", "responses": FOUR}, pair(), **EVERYTHING)

    def state() -> dict[str, Any]:
        return {
            "checked": [one.get_attribute("value") for one in page.locator(".desk :checked, #scale :checked").all()],
            "bad": page.locator("#all-bad").get_attribute("aria-pressed"),
            "why": page.locator("#rationale").input_value(),
            "marks": page.locator("#mark-list").inner_text(),
            "highlighted": page.evaluate(HIGHLIGHTED),
            "rewrite": page.locator("#rewrite-tip").inner_text(),
        }

    with annotate.served() as running:
        begin(page, running.url, login)
        ranked_by_keys(page, RANKS)
        press(page, "2", *"12341233", "x", "w")
        page.keyboard.type("Because.")
        press(page, "Escape", "e")
        page.keyboard.type("My ")
        press(page, "Escape", "m", "g")
        with page.expect_response("**/draft"):
            pass
        done = state()
        order = shown(page)
        assert done["marks"] and done["why"] and len(done["checked"]) == 4 + 1 + 8
        page.screenshot(path=screenshots / "everything.png")
        page.reload()
        page.locator("#concord[data-view=work]").wait_for()
        assert shown(page) == order and state() == done
    port = httpx.URL(running.url).port
    with annotate.served(port=port):
        page.evaluate("localStorage.clear()")  # as on another machine: the server's draft
        page.reload()
        page.locator("#concord[data-view=work]").wait_for()
        assert shown(page) == order and state() == done
        submit(page)
        press(page, "u")
        page.get_by_text("You are changing this answer").wait_for()
        assert shown(page) == order and state() == done
        press(page, "w", "End", "!", "Control+Enter", "Enter")
        page.get_by_text("Saved ✓").wait_for()
        first, second = stored(house, login)
    rated = {"helpful": dict(zip(order, [1, 2, 3, 4], strict=True)), "safe": dict(zip(order, [1, 2, 3, 3], strict=True))}
    assert first["ranks"] == [3, 1, 2, 2] and first["flags"] == ["all-bad"] and first["rationale"] == "Because."
    assert first["edited"] == {"response": 1, "text": "My first"} and first["strength"] == 2
    assert first["ratings"] == {name: [values[text] for text in FOUR] for name, values in rated.items()}
    [span] = first["spans"]
    assert FOUR[span["response"]] == span["text"]
    assert second == {**first, "revision": 2, "rationale": "Because.!"}


# --- the page -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (768, 1024), (360, 740)])
@pytest.mark.parametrize("count", [2, 4])
def test_with_everything_on_there_is_room_to_read(
    page: Any, server: Server, house: House, begin: Callable, screenshots: Path, width: int, height: int, count: int
) -> None:
    long = [f"{word} " * 300 for word in FOUR[:count]]
    login = house.project(f"asks-room-{width}-{count}", {"prompt": "Long?", "responses": long}, **EVERYTHING)
    page.set_viewport_size({"width": width, "height": height})
    begin(page, server.url, login)
    page.screenshot(path=screenshots / f"everything-{width}-{count}.png")
    assert page.evaluate("document.querySelector('#concord').scrollWidth") <= width
    verdict = page.locator("#verdict").bounding_box()
    assert verdict["y"] + verdict["height"] <= height
    assert verdict["height"] <= (172 if width > 760 else 0.32 * height)
    if width > 760:
        reading = page.locator(".reading").bounding_box()
        assert reading["width"] * reading["height"] >= 0.45 * width * height


def test_fingers_have_room(phone: Any, server: Server, house: House, begin: Callable) -> None:
    login = house.project("asks-fingers", {"prompt": "Count!", "responses": FOUR}, pair(), **EVERYTHING)
    begin(phone, server.url, login)
    targets = ".work button:visible, .work .steps label:visible"
    for number in range(2):
        small = phone.locator(targets).evaluate_all(
            """found => found.map(one => [one.textContent, one.id, one.getBoundingClientRect()])
                 .filter(([, , box]) => box.height < 43.5 || box.width < 43.5)
                 .map(([text, id, box]) => [text, id, box.width, box.height])"""
        )
        assert small == []
        if number:
            break
        for text in shown(phone):
            card = phone.locator(".response").filter(has_text=text)
            card.locator(".ranks label").nth(RANKS[text] - 1).tap()
        phone.get_by_role("radio", name="clearly better").tap()
        for steps in phone.locator(".rate").all():
            steps.locator("label").first.tap()
        phone.locator("#rationale").fill("So.")
        phone.locator("#submit").tap()
        phone.locator("#prompt").get_by_text("Which city?").wait_for()
