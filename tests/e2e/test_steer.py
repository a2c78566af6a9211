"""An owner steers a project in a real browser, from the form that makes it to the file that comes out of it."""

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from annotate.services.exchange import import_items
from annotate.services.people import add_person
from annotate.services.projects import ProjectSettings, create_project
from preferences.contract import Item
from tests.annotate.conftest import PASSWORD, Server, Visitor
from tests.e2e.conftest import House, three_pairs

pytestmark = pytest.mark.browser

FILE = [
    {"id": "m1", "prompt": "Who are **you**?", "responses": ["I am GPT-4.", "I am a program."], "priority": 9.0},
    {"id": "m2", "prompt": "Second?", "responses": ["one", "two"]},
    {"id": "m3", "prompt": "Third?", "responses": ["one", "two"]},
]


class Steered:
    """A project with an owner, a reviewer and raters, made straight in the database; people speak the API."""

    def __init__(self, server: Server, house: House, name: str, items: list[dict[str, Any]], **settings: Any) -> None:
        self.server, self.name = server, name
        self.owner, self.reviewer = f"{name}-owner", f"{name}-reviewer"
        self.raters = [f"{name}-{letter}" for letter in "abc"]
        records = [Item.model_validate({"id": f"i{number}", **item}) for number, item in enumerate(items)]
        with house.database.write() as session:
            given = ProjectSettings(**{"overlap": 3, "gold_rate": 0.0, "practice": 0, **settings})
            project = create_project(session, name, guidelines=None, settings=given)
            roles = {self.owner: "owner", self.reviewer: "reviewer", **dict.fromkeys(self.raters, "rater")}
            for login, role in roles.items():
                add_person(session, project, login, role=role, name=None, password=PASSWORD)
            import_items(session, project, records, "items.jsonl")
            self.id = project.id
        rows = house.run("SELECT id FROM items WHERE project_id = ? ORDER BY id", self.id)
        self.items = [number for (number,) in rows]

    def rate(self, rater: int, best: str, *, times: int = 1000, **more: Any) -> Visitor:
        """Let a rater prefer what says `best`, clearly, until nothing is left; every answer takes 30 seconds."""
        visitor = self.server.visitor(self.raters[rater])
        following = visitor.next()
        for number in range(times):
            task = following["task"]
            if task is None:
                break
            first = f"<p>{best}</p>" in task["responses"][0][0]["html"]
            said = {"strength": -2 if first else 2, "seconds": 30.0, **more}
            answer = visitor.submit(
                task["assignment"], [1, 2] if first else [2, 1], key=f"key-{rater}-{number:04}", **said
            )
            assert answer.status_code == 200, answer.text
            following = answer.json()["next"]
        return visitor

    def url(self, *parts: str, page: str = "owner") -> str:
        return f"{self.server.url}/{page}/#/projects/{self.id}/{'/'.join(parts)}"


@pytest.fixture
def steered(server: Server, house: House, request: pytest.FixtureRequest) -> Callable[..., Steered]:
    name = re.sub(r"\W+", "-", request.node.name.removeprefix("test_"))[:40]
    return lambda items, **settings: Steered(server, house, name, items, **settings)


def part(page: Any, name: str) -> None:
    """Open a part of the project and wait until it is there."""
    page.get_by_role("navigation", name="Parts of the project").get_by_role("link", name=name).click()
    page.get_by_role("heading", level=1, name=name).wait_for()


def test_an_owner_makes_a_project_and_sees_a_rater_work_in_it(
    page: Any, browser: Any, server: Server, steered: Callable, sign_in: Callable, tmp_path: Path
) -> None:
    sign_in(page, server.url, steered([]).owner)
    page.get_by_role("link", name="New project").click()
    page.get_by_label("Name", exact=True).fill("Made in the app")
    page.get_by_label("Guidelines (Markdown)", exact=True).fill(
        "Prefer what is **true**. <script>document.title='owned'</script>"
    )
    page.get_by_role("region", name="Preview").get_by_text("true").wait_for()
    assert page.locator(".preview strong").inner_text() == "true" and page.locator(".preview script").count() == 0

    page.get_by_text("What raters are asked, pay, checks, consent").click()
    page.get_by_label("Answers for each item").fill("2")
    page.get_by_role("button", name="GPT-4", exact=True).click()
    page.get_by_label("Practice items for a new rater").fill("1")
    page.get_by_label("Checks among real items").fill("0")
    page.reload()  # what was typed is still there
    page.get_by_role("region", name="Preview").get_by_text("true").wait_for()
    assert page.get_by_label("Name", exact=True).input_value() == "Made in the app"
    assert page.get_by_label("Hide these words").input_value() == "GPT-4"

    lines = [json.dumps(row) for row in FILE]
    file = tmp_path / "items.jsonl"
    file.write_text("\n".join([lines[0], '{"id": "m2", "prompt": "Second?", "responses": ["one"]}']))
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_role("alert").get_by_text("line 2").wait_for()
    file.write_text("\n".join(lines))
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_text("Items: 3. No mistake found.").wait_for()
    first = page.locator(".sample").first
    assert first.locator(".prompt strong").inner_text() == "you"
    assert "I am █████." in first.inner_text() and "GPT-4" not in first.inner_text()
    page.get_by_role("button", name="Make the project").click()
    page.get_by_role("heading", name="Overview").wait_for()
    answered = page.locator(".tile").filter(has_text="items with an answer").locator("b")
    assert answered.inner_text() == "0 of 3"

    part(page, "Practice and checks")
    page.get_by_label("Prompt (Markdown)").fill("What is 2 + 2?")
    page.get_by_role("textbox", name="Response A").fill("It is 4.")
    page.get_by_role("textbox", name="Response B").fill("It is 5.")
    page.get_by_label("Why that is right").fill("Only one is **correct**.")
    page.get_by_role("button", name="Preview").click()
    page.locator(".why strong").get_by_text("correct").wait_for()
    page.get_by_role("button", name="Add it").click()
    page.get_by_role("table", name="Gold items").get_by_text("What is 2 + 2?").wait_for()

    part(page, "People")
    page.get_by_role("button", name="Make a link").click()
    link = page.get_by_label("Invitation link").and_(page.locator("input")).input_value()
    page.get_by_role("button", name="Close").click()
    page.get_by_text("open until").wait_for()
    part(page, "Overview")

    context = browser.new_context()
    context.set_default_timeout(15000)
    rater = context.new_page()
    rater.goto(link)
    rater.get_by_label("Choose a login").fill("newcomer")
    rater.get_by_label("Choose a password").fill(PASSWORD)
    rater.keyboard.press("Enter")
    rater.get_by_role("button", name="I have read them, start").click()
    rater.locator("#prompt").get_by_text("What is 2 + 2?").wait_for()  # the item that the owner has just written
    letter = rater.locator(".response").filter(has_text="It is 5.").locator(".letter").inner_text()
    rater.keyboard.press("1" if letter == "A" else "7")
    rater.keyboard.press("Enter")
    rater.locator("#feedback strong").get_by_text("correct").wait_for()
    rater.keyboard.press("Enter")
    rater.locator("#prompt").get_by_text("Who are you?").wait_for()
    assert "GPT-4" not in rater.content()
    rater.keyboard.press("1")
    rater.keyboard.press("Enter")
    rater.get_by_text("Saved ✓").wait_for()
    context.close()

    page.get_by_text("As a table").focus()
    answered.get_by_text("1 of 3").wait_for(timeout=25000)  # by itself
    assert page.evaluate("document.activeElement.textContent") == "As a table"
    part(page, "Raters")
    page.get_by_role("rowheader", name="newcomer").wait_for()
    part(page, "Practice and checks")
    page.get_by_role("cell", name="0 of 1").wait_for()


def test_a_project_whose_items_are_refused_is_not_lost(
    page: Any, server: Server, house: House, steered: Callable, sign_in: Callable, tmp_path: Path
) -> None:
    sign_in(page, server.url, steered([]).owner)
    page.get_by_role("link", name="New project").click()
    page.get_by_label("Name", exact=True).fill("Made in two steps")
    file = tmp_path / "items.jsonl"
    file.write_text(json.dumps(FILE[1]))
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_text("Items: 1. No mistake found.").wait_for()
    page.route("**/items", lambda route: route.abort())
    page.get_by_role("button", name="Make the project").click()
    page.get_by_text("The project is there, but its items were refused.").wait_for()
    page.unroute("**/items")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    page.locator("input[type=file]").set_input_files(empty)
    page.get_by_text("Items: 1. No mistake found.").wait_for(state="detached")  # that was of the other file
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_text("Items: 1. No mistake found.").wait_for()
    page.get_by_role("button", name="Try again").click()
    page.locator(".tile").filter(has_text="items with an answer").get_by_text("0 of 1").wait_for()
    assert house.run("SELECT count(*) FROM projects WHERE name = 'Made in two steps'") == [(1,)]
    page.goto(server.url + "/owner/#/new")
    assert page.get_by_label("Name", exact=True).input_value() == ""  # the next project begins anew


def test_who_decides_is_blind_until_they_have_decided(
    page: Any, server: Server, steered: Callable, sign_in: Callable
) -> None:
    items = [
        {"id": "calm", "prompt": "Calm?", "responses": ["one", "two"], "priority": 2.0},
        {
            "id": "hot",
            "prompt": "Hot?",
            "responses": [{"text": "one", "model": "model-x"}, {"text": "two", "model": "model-y"}],
        },
    ]
    project = steered(items)
    project.rate(0, "one", rationale="<b>One</b> is what I like.")
    project.rate(1, "one", times=1)
    project.rate(1, "two", flags=["broken"])
    seen: list[str] = []
    page.on("response", lambda answer: seen.append(answer.text()) if answer.url.endswith("/decision") else None)
    sign_in(page, project.url("items"), project.owner)
    rows = page.get_by_role("table", name="Contested items").locator("tbody tr")
    rows.first.wait_for()
    assert rows.locator("th").all_inner_texts() == ["hot", "calm"]  # what they differ on comes first
    page.get_by_role("link", name="hot").click()
    page.get_by_role("heading", name="What do you say?").wait_for()
    assert "model-x" not in page.content() and "is what I like" not in page.content()
    assert len(seen) == 1 and '"votes":null' in seen[0] and "what I like" not in seen[0] and "model-x" not in seen[0]
    assert page.get_by_role("button", name="Decide").is_disabled()
    card = page.locator(".response").filter(has_text="one")
    page.get_by_role("radio", name=f"{card.locator('.letter').inner_text()} clearly").check()
    page.get_by_label("Why, in a few words").fill("It is shorter.")
    page.get_by_role("button", name="Decide").click()
    page.get_by_role("heading", name="What raters said").wait_for()
    votes = page.locator(".votes").inner_text()
    assert "<b>One</b> is what I like." in votes and "broken" in votes and "It is shorter." in votes
    assert card.get_by_text("model-x").is_visible()
    page.reload()
    page.get_by_role("heading", name="Your decision").wait_for()

    page.get_by_label("Answers wanted").fill("5")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("Saved ✓").first.wait_for()
    item = server.visitor(project.owner).http.get(f"/api/v1/projects/{project.id}/items?search=hot").json()["items"][0]
    assert item["overlap"] == 5
    page.go_back()  # the list, with the decided one at its end
    page.get_by_role("table", name="Contested items").wait_for()
    assert rows.locator("th").all_inner_texts() == ["calm", "hot"]
    page.get_by_label("Find by id or tag").fill("cal")
    page.keyboard.press("Enter")
    page.get_by_role("table", name="Items", exact=True).wait_for()
    assert page.locator("tbody th").all_inner_texts() == ["calm"]


def test_a_question_gets_its_reply(page: Any, server: Server, steered: Callable, sign_in: Callable) -> None:
    project = steered(three_pairs())
    rater = server.visitor(project.raters[0])
    task = rater.next()["task"]["assignment"]
    asked = rater.http.post(f"{rater.project}/questions", json={"assignment": task, "text": "Why <i>so</i>?"})
    assert asked.status_code == 201
    sign_in(page, project.url("overview"), project.owner)
    page.get_by_role("link", name="Questions Open: 1").click()
    page.locator(".asked").get_by_text("Why <i>so</i>?").wait_for()
    page.get_by_label("Reply").fill("Because.")
    page.get_by_role("button", name="Send").click()
    page.get_by_role("heading", name="Answered").wait_for()
    page.get_by_role("link", name="Questions", exact=True).wait_for()  # nothing is open any more
    mine = rater.http.get(f"{rater.project}/questions/mine").json()["questions"][0]
    assert (mine["reply"], mine["read"]) == ("Because.", False)


def test_pay_is_what_a_hand_calculates(page: Any, server: Server, steered: Callable, sign_in: Callable) -> None:
    """3 answers of 30 s at 12 an hour are 0.30; 1 answer is 0.10."""
    project = steered(three_pairs())
    project.rate(0, "one")
    project.rate(1, "one", times=1)
    sign_in(page, project.url("pay"), project.owner)
    page.get_by_label("Amount").fill("12")
    page.get_by_role("button", name="Save").click()
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name=project.raters[0]))
    row.get_by_text("€0.30").wait_for()
    assert row.locator("td").all_inner_texts() == ["3", "1 min 30 sec", "30 sec", "€0.30"]
    total = page.locator("tfoot td").all_inner_texts()
    assert total == ["4", "2 min", "30 sec", "€0.40"]
    with page.expect_download() as downloaded:
        page.get_by_role("button", name="Download as CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(downloaded.value.path()).read_text(encoding="utf-8-sig"))))
    assert [(one["answers"], one["active_seconds"], one["cost"]) for one in rows] == [
        ("3", "90.0", "0.30"),
        ("1", "30.0", "0.10"),
        ("4", "120.0", "0.40"),
    ]
    made = page.evaluate(
        """async () => {
            const { csv } = await import("/static/steer/pay.js");
            const person = (rater, name) => ({ rater, name, pseudonym: "p", paid: 1, active_seconds: 1, cost: 1 });
            const cost = { answers: 1, active_seconds: 1, amount: 1, currency: "EUR" };
            const names = ["=1+1", "+cmd", "-2+3", "@x", "\\tx", 'a "b", c'];
            return csv({ cost }, names.map((rater) => person(rater, "=x")));
        }"""
    )
    cells = [row[:2] for row in csv.reader(io.StringIO(made))][1:-1]
    assert [cell[0] for cell in cells] == ["'=1+1", "'+cmd", "'-2+3", "'@x", "'\tx", 'a "b", c']
    assert {cell[1] for cell in cells} == {"'=x"}


def test_the_export_is_what_its_preview_counts(page: Any, steered: Callable, sign_in: Callable) -> None:
    project = steered([{"prompt": f"Number {n}?", "responses": ["one", "two"]} for n in range(12)])
    project.rate(0, "one")
    project.rate(1, "one")
    sign_in(page, project.url("export"), project.owner)
    page.locator(".tile").first.wait_for()
    tiles = {tile.locator("span").inner_text(): tile.locator("b").inner_text() for tile in page.locator(".tile").all()}
    assert page.locator(".sample").count() == 3
    with page.expect_download() as downloaded:
        page.get_by_role("button", name="Download the zip").click()
    with zipfile.ZipFile(downloaded.value.path()) as archive:
        rows = {name: archive.read(name).decode().splitlines() for name in archive.namelist()}
    pairs = sum(len(rows[f"{split}.jsonl"]) for split in ("train", "validation", "test"))
    assert (tiles["pairs"], tiles["rankings"]) == (str(pairs), str(len(rows["rankings.jsonl"]))) == ("12", "12")
    assert (tiles["for training"], tiles["for tests"]) == (str(len(rows["train.jsonl"])), str(len(rows["test.jsonl"])))


def test_settings_that_somebody_else_has_changed_meanwhile(
    page: Any, server: Server, steered: Callable, sign_in: Callable
) -> None:
    project = steered(three_pairs())
    sign_in(page, project.url("settings"), project.owner)
    page.get_by_label("Answers for each item").wait_for()
    other = server.visitor(project.owner)
    path = f"/api/v1/projects/{project.id}"
    change = {"practice": 7, "rationale": "required"}
    assert other.http.patch(path, json=change, headers={"If-Match": '"1"'}).status_code == 200
    page.get_by_label("Answers for each item").fill("2")
    page.get_by_role("button", name="Save the settings").click()
    page.get_by_text("Somebody has changed this meanwhile:").wait_for()
    said = page.locator(".changing .alert li").all_inner_texts()
    assert said == ["Practice items for a new rater: 0 → 7", "A reason in the rater's words: off → required"]
    page.get_by_role("button", name="Save mine on top").click()
    page.wait_for_function("[...document.querySelectorAll('.settings input')].some(one => one.value === '7')")
    now = other.http.get(path).json()
    assert (now["overlap"], now["practice"], now["rationale"], now["version"]) == (2, 7, "required", 3)

    page.get_by_label("Guidelines (Markdown)", exact=True).fill("Be *kind*.")
    page.get_by_role("button", name="Put the new version in force").click()
    page.get_by_text("Version 1 is in force.").wait_for()
    page.get_by_role("button", name="Close the project").click()
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Open again").wait_for()
    assert other.http.get(path).json()["closed"] is True


def test_an_owner_removes_and_erases_a_rater(page: Any, server: Server, steered: Callable, sign_in: Callable) -> None:
    project = steered(three_pairs())
    project.rate(0, "one", rationale="Because I am anna.")
    rater = project.raters[0]
    sign_in(page, project.url("raters"), project.owner)
    page.get_by_role("link", name=rater).click()
    page.get_by_role("table", name="Newest answers").get_by_text("Because I am anna.").first.wait_for()
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Bring back").click()
    page.get_by_role("button", name="Link for a new password").click()
    assert "/password/" in page.get_by_role("dialog").locator("input").input_value()
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Erase who they are").click()
    dialog = page.get_by_role("dialog")
    assert dialog.get_by_role("button", name="Erase").is_disabled()
    dialog.get_by_role("textbox").fill(rater)
    dialog.get_by_role("button", name="Erase").click()
    page.get_by_role("heading", name="Raters", level=1).wait_for()
    assert rater not in page.locator(".content").inner_text()


def test_the_address_says_what_is_shown(page: Any, steered: Callable, sign_in: Callable) -> None:
    project = steered(three_pairs())
    sign_in(page, project.url("people"), project.owner)
    page.get_by_role("heading", level=1, name="People").wait_for()
    part(page, "Pay")
    part(page, "Items")
    page.go_back()
    page.reload()
    page.get_by_role("heading", level=1, name="Pay").wait_for()
    assert page.get_by_role("link", name="Pay").get_attribute("aria-current") == "page"
    part(page, "Items")
    assert page.evaluate("document.activeElement.tagName") == "H1"  # where a screen reader goes on


def test_a_reviewer_does_only_what_they_may(page: Any, server: Server, steered: Callable, sign_in: Callable) -> None:
    items = [*three_pairs(), {"prompt": "Known?", "responses": ["one", "two"], "gold": [1, 2]}]
    project = steered(items, pay={"amount": 10, "currency": "EUR", "per": "hour"})
    project.rate(0, "one")
    project.rate(1, "two")
    sign_in(page, server.url, project.reviewer)  # the front page knows where they belong
    page.wait_for_url("**/review/**")
    page.get_by_role("link", name=project.name, exact=True).click()
    page.get_by_role("heading", name="Overview").wait_for()
    parts = page.get_by_role("navigation", name="Parts of the project").get_by_role("link").all_inner_texts()
    assert parts == ["Overview", "Items", "Questions", "Agreement", "Raters"]
    seen = page.content()
    for name in ("Raters", "Agreement", "Items", "Questions"):
        part(page, name)
        seen += page.content()
    assert not [login for login in (*project.raters, project.owner, "€", "New project") if login in seen]
    page.goto(project.url("settings", page="review"))
    page.get_by_role("heading", name="Overview").wait_for()
    part(page, "Items")
    page.get_by_role("link", name="i0").click()
    page.get_by_role("radio", name="Same").check()
    page.get_by_role("button", name="Decide").click()
    page.get_by_role("heading", name="What raters said").wait_for()
    assert not [login for login in project.raters if login in page.content()]
    assert page.get_by_label("Answers wanted").count() == 0
    page.goto(server.url + "/owner/")
    page.get_by_text("It is for owners").wait_for()
    page.get_by_role("link", name="Go to your page").click()
    page.wait_for_url("**/review/**")


def test_unsaved_settings_are_not_left_unasked(
    browser: Any, server: Server, steered: Callable, sign_in: Callable
) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()  # the fixture's takes a dialog for trouble
    project = steered([])
    sign_in(page, project.url("settings"), project.owner)
    page.get_by_label("Answers for each item").fill("7")
    asked: list[str] = []

    def answer(dialog: Any) -> None:
        asked.append(dialog.message)
        if len(asked) == 1:
            dialog.dismiss()
        else:
            dialog.accept()

    page.on("dialog", answer)
    page.get_by_role("link", name="People", exact=True).click()
    page.wait_for_url("**/settings")
    assert page.get_by_label("Answers for each item").input_value() == "7"
    page.get_by_role("link", name="People", exact=True).click()
    page.get_by_role("heading", name="People").wait_for()
    assert len(asked) == 2
    context.close()


def test_agreement_says_in_pictures_and_tables_what_the_report_says(
    page: Any, server: Server, steered: Callable, sign_in: Callable
) -> None:
    items = [{"prompt": f"Number {n}?", "responses": ["one", "two"], "tags": ["de"] * (n < 9)} for n in range(24)]
    project = steered(items, overlap=2)
    project.rate(0, "one")
    project.rate(1, "one", times=15)
    project.rate(1, "two")
    sign_in(page, project.url("agreement"), project.owner)
    page.get_by_role("heading", name="Agreement", exact=True).wait_for()
    found = server.visitor(project.owner).http.get(f"/api/v1/projects/{project.id}/report").json()
    alpha, interval = (found["agreement"][f"krippendorff_alpha_nominal{end}"] for end in ("", "_interval"))
    measures = page.locator("figure", has_text="Measures of agreement")
    assert measures.get_by_role("img").count() == 1
    measures.get_by_text("As a table").click()
    cells = measures.get_by_role("row", name="Alpha, nominal").locator("td").all_inner_texts()
    assert [float(cells[0]), *map(float, cells[1].split(" to "))] == pytest.approx([alpha, *interval], abs=0.0051)
    by_tag = page.locator("figure", has_text="Agreement by tag")
    by_tag.get_by_text("As a table").click()
    assert "9" in by_tag.get_by_role("row", name="de").inner_text().split()
    page.get_by_text("What the numbers mean, and what to do").click()
    page.get_by_text("1 is perfect, 0 is chance, below 0 is worse").wait_for()
    page.get_by_role("link", name="Overview").click()
    page.get_by_role("link", name="95% between").click()
    page.get_by_role("heading", name="Agreement", exact=True).wait_for()
