"""The pages in other languages: drawn right, remembered, no flash of English, and whole without a language file."""

import pytest

from annotate.api.words import languages, say, sentences, translated
from tests.annotate.conftest import PASSWORD
from tests.e2e.conftest import three_pairs

pytestmark = pytest.mark.browser
SIZES = ((1440, 900), (360, 740))
TOO_LONG = """() => [...document.querySelectorAll("#scale label")]
  .filter((step) => step.scrollWidth > step.clientWidth).map((step) => step.textContent)"""


@pytest.fixture
def speaking(browser):
    """Makes a page of a browser that wants a language; errors of scripts fail the test."""
    made = []

    def open_page(language: str, width: int = 1280, height: int = 800):
        context = browser.new_context(locale=language, viewport={"width": width, "height": height})
        context.set_default_timeout(15000)
        page = context.new_page()
        trouble: list[str] = []
        page.on("pageerror", lambda error: trouble.append(str(error)))
        made.append((context, trouble))
        return page

    yield open_page
    for context, trouble in made:
        context.close()
        assert trouble == []


def sign_in(page, url: str, login: str) -> None:
    page.goto(url + "/login")
    page.locator("input[name=login]").fill(login)
    page.locator("input[name=password]").fill(PASSWORD)
    page.keyboard.press("Enter")


def at_work(page, url: str, login: str) -> None:
    sign_in(page, url, login)
    page.locator("#concord[data-view=work]").wait_for()


def direction(page, selector: str) -> str:
    return page.locator(selector).first.evaluate("element => getComputedStyle(element).direction")


def left(page, selector: str) -> float:
    box = page.locator(selector).first.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2


@pytest.mark.parametrize("language", sorted(languages()))
def test_login_and_rating_speak_it(language: str, speaking, server, house, screenshots) -> None:
    rater = house.project(f"speaks-{language}", *three_pairs())
    for width, height in SIZES:
        page = speaking(language, width, height)
        page.goto(server.url + "/login")
        assert page.locator("html").get_attribute("lang") == language
        assert page.locator("h1").inner_text() == say(language, "Sign in")
        page.screenshot(path=str(screenshots / f"login-{language}-{width}.png"))
        at_work(page, server.url, rater)
        assert page.locator("#submit-words").inner_text() == say(language, "Submit")
        assert page.locator("html").get_attribute("lang") == language
        rtl = language == "ar"
        assert direction(page, "#concord") == ("rtl" if rtl else "ltr")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
        assert page.evaluate(TOO_LONG) == [], "the words of the scale fit"
        if width > 1000:  # the first response is where reading begins, and the button that ends where it ends
            first, second = (left(page, f"#responses > :nth-child({place})") for place in (1, 2))
            assert (first > second) == rtl
            assert (left(page, "#submit") < width / 2) == rtl
        assert direction(page, "#prompt p") == "ltr", "a text keeps its own direction"
        page.screenshot(path=str(screenshots / f"rate-{language}-{width}.png"))


def test_an_answer_in_arabic(speaking, server, house) -> None:
    """Keys and receipts as in English; numbers are those of the keys."""
    rater = house.project("arabic", *three_pairs())
    page = speaking("ar")
    at_work(page, server.url, rater)
    assert page.locator("#count").inner_text() == say("ar", "{done} of {total}", done=0, total=3)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.get_by_text(say("ar", "Saved ✓")).wait_for()
    assert sorted(house.answers(rater)[0]["ranks"]) == [1, 2]


def test_a_choice_is_remembered(speaking, server, house) -> None:
    rater = house.project("chooses", *three_pairs())
    page = speaking("en-GB")
    page.goto(server.url + "/login")
    page.get_by_role("button", name="Deutsch").click()
    assert page.locator("h1").inner_text() == sentences("de")["Sign in"], "without JavaScript, on the same page"
    at_work(page, server.url, rater)
    assert page.locator("html").get_attribute("lang") == "de"
    page.keyboard.press("3")  # not submitted
    choose(page, "ar")
    assert page.locator("html").get_attribute("dir") == "rtl"
    assert page.locator("#scale input:checked").count() == 1, "the draft is kept"
    page.locator("#concord form[action='/logout'] button").first.click()
    page.locator("input[name=password]").wait_for()
    assert page.locator("html").get_attribute("dir") == "rtl", "after signing out"
    elsewhere = speaking("es")
    at_work(elsewhere, server.url, rater)
    assert elsewhere.locator("html").get_attribute("lang") == "ar", "and in another browser after signing in"


def choose(page, language: str) -> None:
    """Choose a language in the header of a page, which it is loaded anew for."""
    chooser = page.locator("select.languages")
    if not chooser.is_visible():
        page.locator("details:has(select.languages) > summary").click()
    with page.expect_navigation():
        chooser.select_option(language)
    page.locator("#concord[data-view=work]").wait_for()


def test_a_refusal_arrives_in_the_language(speaking, server, house) -> None:
    rater = house.project("refused", *three_pairs())
    page = speaking("zh-CN")
    at_work(page, server.url, rater)
    house.run("UPDATE members SET removed_at = 1.0 WHERE rater = ?", rater)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    said = translated("zh", "You may not do this here: it takes the right to rate in this project.")
    page.get_by_text(say("zh", "Not saved. {why}", why=said)).wait_for()
    wrong = speaking("de")
    wrong.goto(server.url + "/login")
    wrong.locator("input[name=login]").fill(rater)
    wrong.locator("input[name=password]").fill("not the password")
    wrong.keyboard.press("Enter")
    said = sentences("de")["That login and password don't belong together. Check both and try again."]
    assert wrong.get_by_role("alert").inner_text() == said


def test_english_never_flashes(speaking, server, house) -> None:
    """What is on the screen before the language file has come is nothing."""
    rater = house.project("slow", *three_pairs())
    page = speaking("de")
    sign_in(page, server.url, rater)
    page.locator("#concord[data-view=work]").wait_for()
    held = []
    page.route("**/static/languages/de.json", lambda route: held.append(route))
    page.goto(server.url + "/rate/")
    page.locator("#concord").wait_for(state="attached")
    page.wait_for_timeout(500)
    assert held and page.locator("#concord").evaluate("page => getComputedStyle(page).visibility") == "hidden"
    held[0].continue_()
    page.locator("#concord[data-view=work]").wait_for()
    assert page.locator("#submit-words").inner_text() == sentences("de")["Submit"]


@pytest.mark.parametrize("failure", ["missing", "broken", "silent"])
def test_a_page_without_its_language_file_is_english(failure: str, speaking, server, house) -> None:
    rater = house.project(f"without-{failure}", *three_pairs())
    page = speaking("de")
    answers = {
        "missing": lambda route: route.fulfill(status=404, body="no"),
        "broken": lambda route: route.fulfill(status=200, body='{"Submit": '),
        "silent": lambda route: None,
    }
    page.route("**/static/languages/de.json", answers[failure])
    at_work(page, server.url, rater)
    assert page.locator("#submit-words").inner_text() == "Submit"
    assert page.locator("html").get_attribute("lang") == "en"
    page.unroute_all(behavior="ignoreErrors")


WRITTEN = """async () => {
  const words = await import("/static/words.js");
  await words.speak();
  return [
    words.n(1234567.891), words.n(-0.5), words.percent(0.874), words.money(1234.5, "EUR"), words.money(3, "no such"),
    words.day("2026-11-22"), words.duration(4.25), words.duration(59.6), words.duration(95), words.duration(3900),
    words.duration(3599.7), words.ago(Date.now() / 1000 - 190),
    words.t("{done} of {total}", { done: 1234, total: "<b>" }),
    words.t("No such sentence {at} all", {}), words.tn("Undo").length,
  ].map((one) => String(one).replace(/[\u00a0\u202f]/g, " ").replace(/[\u200e\u200f]/g, ""));
}"""


@pytest.mark.parametrize(
    "language, written",
    [
        (
            "en-US",
            "1,234,567.89;-0.5;87%;€1,234.50;3 no such;Nov 22, 2026;4.3 sec;1 min;1 min 35 sec;1 hr 5 min;1 hr;"
            "3 minutes ago;1,234 of <b>;No such sentence {at} all;1",
        ),
        (
            "de-DE",
            "1.234.567,89;-0,5;87 %;1.234,50 €;3 no such;22. Nov. 2026;4,3 Sek.;1 Min.;1 Min. 35 Sek.;1 Std. 5 Min.;"
            "1 Std.;vor 3 Minuten;1.234 von <b>;No such sentence {at} all;1",
        ),
        (
            "ar-EG",
            "1,234,567.89;-0.5;87%;1,234.50 €;3 no such;22 نوفمبر 2026;4.3 ث;1 د;1 د 35 ث;1 س 5 د;1 س;"
            "قبل 3 دقائق;1,234 من <b>;No such sentence {at} all;1",
        ),
    ],
)
def test_numbers_dates_and_money(language: str, written: str, speaking, server) -> None:
    """As the language writes them; Arabic with the digits of the number keys."""
    page = speaking(language)
    page.goto(server.url + "/login")
    page.evaluate(
        """names => {
      document.querySelector("meta[name=concord-languages]")?.remove();
      const meta = document.createElement("meta");
      Object.assign(meta, { name: "concord-languages", content: JSON.stringify(names) });
      document.head.append(meta);
    }""",
        languages(),
    )
    assert page.evaluate(WRITTEN) == written.split(";")
