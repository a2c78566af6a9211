"""Hostile text in a real browser, wherever text can come from: nothing runs, nothing loads, nothing covers a control.

The same attacks go through the cleaner alone in tests/annotate/test_render.py. Here they go through the pages of
raters, owners and reviewers, many at once, and what the pages make of them is looked at from the inside.
"""

import io
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from annotate.services.exchange import import_items
from annotate.services.people import add_person, find_person, give_part, new_person
from annotate.services.projects import ProjectSettings, create_project
from annotate.store.database import open_database
from annotate.store.tables import Item as ItemRow
from annotate.store.tables import Member, Question
from preferences.contract import Item
from tests.annotate.conftest import PASSWORD, Annotate, Server
from tests.e2e.conftest import House
from tests.endpoints import outside
from tests.hostile import ATTACKS

pytestmark = pytest.mark.browser

TEXTS = [attack.text for attack in ATTACKS]
SHORT = [text for text in TEXTS if len(text) <= 2000 and "\0" not in text]  # which no database stores
NAMES = [text for text in dict.fromkeys(text.strip() for text in TEXTS) if 0 < len(text) <= 100 and text.isprintable()]
LOGIN = "hostile.rater"
OWNER = "hostile.owner"
REVIEWER = "hostile.reviewer"
A_RESPONSE = 21  # attacks an item as responses, and the same ones as turns of its prompt

# Runs before any script of a page; what an attack says it did, and what the page's policy has refused.
WATCH = """
    window.refused = [];
    document.addEventListener("securitypolicyviolation", (event) =>
        refused.push(`${event.effectiveDirective} ${event.blockedURI}`));
    window.alert = window.confirm = window.prompt = () => { window.owned = "a dialog"; };
"""

# What is wrong with a page as it stands, in words.
LOOK = """() => {
    const wrong = [];
    const said = (what, element) => wrong.push(`${what}: ${element?.outerHTML?.slice(0, 160) ?? element}`);
    if (window.owned !== undefined || ({}).owned !== undefined) said("a text has run", window.owned);
    for (const words of refused) said("a text asked for something that the policy refused", words);

    // Of rendered text: no element that does something, no attribute that makes one do so, nothing that floats.
    const harmless = new Set(`P BR HR H1 H2 H3 H4 H5 H6 STRONG EM S CODE PRE BLOCKQUOTE UL OL LI TABLE THEAD TBODY
        TR TH TD A SPAN math mi mn mo mtext mspace mrow mfrac msqrt mroot msub msup msubsup munder mover munderover
        mtable mtr mtd mstyle mphantom menclose`.split(/\\s+/));
    const known = new Set(`class href target rel title start dir data-length data-language alttext display mathvariant
        stretchy fence separator accent movablelimits form minsize maxsize width linethickness displaystyle scriptlevel
        columnalign notation`.split(/\\s+/));
    for (const body of document.querySelectorAll(".body")) {
        if (!body.closest(".text")) said("rendered text outside of .text", body);
        for (const element of body.querySelectorAll("*")) {
            if (!harmless.has(element.tagName)) said("an element", element);
            for (const { name } of element.attributes) if (!known.has(name)) said(`an attribute ${name}`, element);
        }
        for (const element of [...body.querySelectorAll("*")].slice(0, 200)) {
            const { position, float, zIndex, cursor } = getComputedStyle(element);
            if (position !== "static" || float !== "none" || zIndex !== "auto") said("something that floats", element);
            if (cursor === "pointer" && !element.closest("a[href]")) said("it looks as if it can be pressed", element);
        }
        for (const link of body.querySelectorAll("a[href]")) {
            if (!/^(https?|mailto):$/.test(link.protocol) || link.target !== "_blank") said("a link", link);
            if (link.origin === location.origin) said("a link that leads into this site", link);
        }
    }

    // Words of others that are no rendered text can't reorder what stands beside them.
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const parent = walk.currentNode.parentElement;
        if (parent.closest("textarea, script, style")) continue;
        if (/[\\u202a-\\u202e]/.test(walk.currentNode.data)) said("an override", parent);
    }

    // Every control that can be seen can be reached where it stands.
    const modal = document.querySelector("dialog:modal");
    const controls = [...document.querySelectorAll("button, input, select, textarea, summary, a[href], label")].filter(
        (one) => !one.closest(".body") && (!modal || modal.contains(one)));
    let reached = 0;
    for (const control of controls) {
        const { left, top, width, height } = control.getBoundingClientRect();
        const [x, y] = [left + width / 2, top + height / 2];
        if (!width || !height || !control.checkVisibility({ visibilityProperty: true })) continue;
        const seen = (box) => {
            const edge = box.getBoundingClientRect();
            return x >= edge.left && x < edge.right && y >= edge.top && y < edge.bottom;
        };
        let inView = x >= 0 && y >= 0 && x < innerWidth && y < innerHeight;
        for (let box = control.parentElement; box && inView; box = box.parentElement) {
            if (getComputedStyle(box).overflow !== "visible" && !seen(box)) inView = false;
        }
        if (!inView || getComputedStyle(control).pointerEvents === "none") continue;
        const hit = document.elementFromPoint(x, y);
        const its = [control, ...(control.labels ?? [])].some((one) => one.contains(hit));
        if (hit && (its || hit.contains(control))) reached += 1;
        else if (!hit || hit.closest(".body, .text, td, li")) said(`${hit?.outerHTML?.slice(0, 99)} lies over`, control)
    }
    if (!reached) said("no control was reached", document.title);

    // Rendered text is met inside of its own box and nowhere else.
    for (let x = 4; x < innerWidth; x += innerWidth / 40) {
        for (let y = 4; y < innerHeight; y += innerHeight / 40) {
            const box = document.elementFromPoint(x, y)?.closest(".body")?.closest(".text")?.getBoundingClientRect();
            if (box && (x < box.left - 1 || x > box.right + 1 || y < box.top - 1 || y > box.bottom + 1))
                said("text outside of its box", `${x}, ${y}`);
        }
    }
    const wide = document.scrollingElement.scrollWidth;
    if (wide > innerWidth + 1) said("the page is wider than the window", wide);
    return [...new Set(wrong)].slice(0, 20);
}"""


@pytest.fixture(scope="module")
def hostile(house: House) -> dict[str, int]:
    """Projects with attacks in every place that the server accepts them in, by name with their numbers."""
    ids: dict[str, int] = {}
    with house.database.write() as session:

        def project(name: str, items: list[dict[str, Any]], guidelines: str | None = None, **settings: Any) -> Any:
            given = ProjectSettings(**{"overlap": 30, "gold_rate": 0.0, "practice": 0, **settings})
            made = create_project(session, name, guidelines=guidelines, settings=given)
            first = not ids
            for login, role in ((LOGIN, "rater"), (OWNER, "owner"), (REVIEWER, "reviewer")):
                add_person(session, made, login, role=role, name=None, password=PASSWORD if first else None)
            records = [Item.model_validate({"id": f"i{number}", **item}) for number, item in enumerate(items)]
            import_items(session, made, records, "items.jsonl")
            ids[name] = made.id
            return made

        for number, texts in enumerate(_batches(TEXTS, A_RESPONSE)):
            turns = [{"role": "user", "content": text} for text in texts if len(text) < 100_000]
            project(f"batch {number}", [{"prompt": turns, "responses": [*texts, "harmless"]}])

        asked = project(
            "everywhere",
            [_item(number, texts) for number, texts in enumerate(_batches(SHORT, 12))],
            guidelines="\n\n".join(SHORT[:120]),
            consent="\n\n".join(SHORT[60:200]),
            practice=1,
            rationale="optional",
            all_bad=True,
            edit=True,
            spans=True,
            warnings={text[:200]: text for text in SHORT[::9]},
            skills=[text[:200] for text in SHORT[::20]],
            mask=[name for name in NAMES[::25] if "a" not in name],
            dimensions=[
                {"name": name, "anchors": [anchor[:200] for anchor in SHORT[at * 5 : at * 5 + 3]]}
                for at, name in enumerate(
                    ["__proto__", "constructor", *[name for name in NAMES if len(name) <= 40][:6]]
                )
            ],
        )
        password = find_person(session, LOGIN).password_hash
        for number, name in enumerate(NAMES[::2]):
            person = new_person(session, f"__proto__.{number}", name=name, password_hash=password)
            give_part(session, asked.id, person, role="rater")
        rater = session.query(Member).filter_by(project_id=asked.id, rater=LOGIN).one()
        item = session.query(ItemRow.id).filter_by(project_id=asked.id, key="i0").scalar()
        for number, text in enumerate(SHORT[::4]):
            answered = {"reply": text, "replied_at": time.time()} if number % 2 else {}
            session.add(Question(item_id=item, member_id=rater.id, text=text, asked_at=time.time(), **answered))
        right = {"prompt": "2 + 2?", "responses": ["4", "5"], "gold": [1, 2], "explanation": "\n\n".join(SHORT[:150])}
        project("practice", [right, {"prompt": "3 + 3?", "responses": ["6", "7"]}], practice=1)
        for name in NAMES[::6]:
            project(name, [])
    return ids


def _batches(texts: list[str], size: int) -> list[list[str]]:
    return [texts[start : start + size] for start in range(0, len(texts) - len(texts) % size, size)] + [texts[-size:]]


def _item(number: int, texts: list[str]) -> dict[str, Any]:
    """An item that is hostile in each of its parts, with answers of raters who are."""
    answers = [
        {"rater": text[:60], "ranks": [1, 2], "rationale": text, "ratings": {text[:40]: [1.0, 5.0]}}
        | {"edited": {"response": 0, "text": text}, "flags": [text[:30]]}
        for text in {text[:60]: text for text in texts[4:]}.values()
    ]
    item = {
        "prompt": texts[0],
        "responses": [{"text": texts[1], "model": texts[2][:100]}, texts[3]],
        "answers": answers,
    }
    item |= {"tags": [text[:100] for text in texts], "group": texts[0][:100]}
    return item | ({"gold": [1, 2], "explanation": texts[1], "answers": []} if number % 5 == 4 else {})


@pytest.fixture
def looked(page: Any, server: Server) -> Iterator[Callable[[str], None]]:
    """Looks at the page as it stands; at the end, nothing may have been asked for elsewhere."""
    foreign: list[str] = []

    def requested(request: Any) -> None:
        if not request.url.startswith((server.url, "data:", "blob:")) or (
            request.is_navigation_request() and "data:" in request.url
        ):
            foreign.append(request.url)

    page.on("request", requested)
    page.add_init_script(WATCH)

    def look(where: str) -> None:
        assert page.evaluate(LOOK) == [], where

    yield look
    assert foreign == []


def test_prompts_and_responses_on_the_raters_page(
    page: Any, server: Server, hostile: dict[str, int], sign_in: Callable, looked: Callable
) -> None:
    sign_in(page, f"{server.url}/rate/?project={hostile['batch 0']}", LOGIN)
    page.locator("#concord[data-view=work]").wait_for()
    for name in [name for name in hostile if name.startswith("batch")]:
        page.goto(f"{server.url}/rate/?project={hostile[name]}")
        page.locator("#concord[data-view=work]").wait_for()
        assert page.locator(".response").count() > 1
        looked(name)
        page.evaluate("document.querySelector('#responses').scrollTo(0, 1e9)")
        for box in page.locator(".text").all()[::7]:
            box.evaluate("(box) => box.scrollTo(1e9, 1e9)")
        looked(f"{name}, scrolled to the end")


def test_what_owners_write_and_ask_on_the_raters_page(
    page: Any, server: Server, hostile: dict[str, int], sign_in: Callable, looked: Callable
) -> None:
    """Consent, warnings, guidelines, tags, dimensions, practice with its explanation, own answers and questions."""
    sign_in(page, server.url + "/rate/", LOGIN)
    page.locator("#concord[data-view=choose]").wait_for()
    looked("the choice of a project, by its name")
    page.goto(f"{server.url}/rate/?project={hostile['everywhere']}")
    page.locator("#concord[data-view=consent]").wait_for()
    looked("consent and warnings")
    page.locator("#agree").click()
    page.locator("#guidelines[open]").wait_for()
    looked("guidelines")
    page.locator("#guidelines-close").click()
    page.locator("#concord[data-view=work]").wait_for()
    looked("an item with dimensions")
    if page.locator("#concord.covered").count():
        page.locator("#uncover").click()
        looked("an item whose warning was read")
    page.locator("#mine-open").click()
    page.locator("#mine[open] #mine-questions li").first.wait_for()
    looked("own questions, and what the owner replied")

    page.goto(f"{server.url}/rate/?project={hostile['practice']}")
    page.locator("#concord[data-view=work]").wait_for()
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.locator("#feedback .body").wait_for()
    looked("why the right answer is right")


PARTS = ["overview", "items", "questions", "raters", "people", "gold", "pay", "export", "settings"]


def test_no_ink_of_a_text_leaves_its_box(page: Any, server: Server, house: House, begin: Callable) -> None:
    """Stacked accents, wide glyphs and formulas can paint outside of their elements' boxes: so compare pictures."""
    from PIL import Image, ImageChops

    kinds = ("zalgo", "bidi", "latex")
    texts = [
        "\n\n".join(attack.text for attack in ATTACKS if attack.kind == kind and len(attack.text) < 3000)
        for kind in kinds
    ]
    login = house.project("ink", {"prompt": texts[0], "responses": [*texts, "a\u0300" * 300]})
    begin(page, server.url, login)
    page.evaluate("document.querySelectorAll('.text').forEach((box) => box.scrollTo(0, 5))")
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)
    with_text = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    boxes = page.evaluate(
        """() => {
            for (const body of document.querySelectorAll(".body")) body.style.visibility = "hidden";
            return [...document.querySelectorAll(".text")].map((box) => box.getBoundingClientRect()).map(
                (box) => [box.left, box.top, box.right, box.bottom]);
        }"""
    )
    without = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    differs = ImageChops.difference(with_text, without).point(
        lambda value: 255 if value > 60 else 0
    )  # not how edges are smoothed
    assert differs.getbbox() is not None, "the texts were to be seen"
    for left, top, right, bottom in boxes:
        differs.paste((0, 0, 0), (int(left) - 1, int(top) - 1, int(right) + 1, int(bottom) + 1))
    assert differs.getbbox() is None


def test_the_owners_page(
    page: Any, server: Server, hostile: dict[str, int], sign_in: Callable, looked: Callable
) -> None:
    sign_in(page, server.url + "/owner/", OWNER)
    page.locator("#concord[data-view=ready]").wait_for()
    looked("all projects")
    for part in PARTS:
        page.goto(f"{server.url}/owner/#/projects/{hostile['everywhere']}/{part}")
        page.locator("#content h1").wait_for()
        page.wait_for_timeout(300)
        looked(part)
        page.evaluate("document.querySelector('#content').scrollTo(0, 1e9)")
        looked(f"{part}, its end")
    page.goto(f"{server.url}/owner/#/new")
    page.locator("#content h1").wait_for()
    looked("a new project")


@pytest.mark.parametrize("login", [OWNER, REVIEWER])
def test_the_reviewers_page(
    page: Any, server: Server, hostile: dict[str, int], sign_in: Callable, looked: Callable, house: House, login: str
) -> None:
    where = "owner" if login == OWNER else "review"
    sign_in(page, f"{server.url}/{where}/", login)
    page.locator("#concord[data-view=ready]").wait_for()
    items = house.run("SELECT id FROM items WHERE project_id = ? AND gold IS NULL LIMIT 4", hostile["everywhere"])
    for (item,) in items:
        page.goto(f"{server.url}/{where}/#/projects/{hostile['everywhere']}/items/{item}")
        page.locator("#content .response").first.wait_for()
        looked(f"the decision on item {item}")


def test_two_hostile_models_in_the_arena(
    page: Any, tmp_path_factory: pytest.TempPathFactory, sign_in: Callable
) -> None:
    """What they send while it comes, and when it is whole; their names; and what the rater says to them."""
    with outside() as models:
        folder = Annotate(tmp_path_factory.mktemp("arena"))
        open_database(str(folder.folder / "data/annotate.db"), create=True)
        names = [name for name in NAMES if "<" in name or "{" in name][:2]
        simple = [text for text in SHORT if max(text) < "\ud800"]  # JSON writes others as YAML doesn't read them
        halves = ["\n\n".join(simple[::6]), "\n\n".join(simple[1::6])]
        known = {
            name: {"base_url": models.url, "model": f"say:{half}"} for name, half in zip(names, halves, strict=True)
        }
        (folder.folder / "models.yaml").write_text(json.dumps(known))
        login = House(folder).project("arena", arena=names)
        with folder.served(options=["--models", "models.yaml"]) as server:
            page.add_init_script(WATCH)
            sign_in(page, server.url + "/arena/", login)
            page.locator("#words:visible").fill(SHORT[0])
            page.keyboard.press("Enter")
            page.locator(".exchange").wait_for()
            assert page.evaluate(LOOK) == []
            page.locator("#send:visible").wait_for(timeout=60_000)
            assert page.evaluate(LOOK) == []
            page.keyboard.press("Escape")
            page.keyboard.press("4")
            page.keyboard.press("Enter")
            page.locator("#revealed:visible").wait_for()
            assert page.evaluate(LOOK) == []
            assert set(page.locator("#models dd").all_inner_texts()) == set(names)


BREAK = {
    "a text has run": "window.owned = 1",
    "an element": "body.append(document.createElement('button'))",
    "an attribute onclick": "body.firstChild.setAttribute('onclick', '1')",
    "something that floats": "body.firstChild.style.position = 'fixed'",
    "it looks as if": "body.firstChild.style.cursor = 'pointer'",
    "a link that leads into": "body.innerHTML = '<a href=/logout target=_blank>x</a>'",
    "lies over": "document.querySelector('.send').append(body), (body.style.cssText = 'position:fixed;inset:0')",
    "text outside of its box": "body.style.cssText = 'position:fixed;inset:0;pointer-events:auto;contain:none'",
    "an override": "document.querySelector('#hint').textContent = '\\u202e'",
    "the policy refused": "body.append(Object.assign(new Image(), {src: 'https://evil.example/x.png'}))",
    "the page is wider": "document.body.style.width = '3000px'",
}


def test_a_page_that_let_something_happen_would_be_found(
    page: Any, server: Server, house: House, begin: Callable
) -> None:
    page.add_init_script(WATCH)
    begin(page, server.url, house.project("broken", {"prompt": "One?", "responses": ["one", "two"]}))
    for what, script in BREAK.items():
        page.reload()
        page.locator("#concord[data-view=work]").wait_for()
        assert page.evaluate(LOOK) == []
        page.evaluate(f"() => {{ const body = document.querySelector('.response .body'); {script}; }}")
        page.wait_for_timeout(100)
        assert any(what in words for words in page.evaluate(LOOK)), what
