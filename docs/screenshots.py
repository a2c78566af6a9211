"""Take the pictures of the guides anew, or of every page in every width and colour, to look at.

    python docs/screenshots.py [NAME...]            # docs/images/NAME.png; without names, all of them
    python docs/screenshots.py --all FOLDER         # every state at 1440, 768 and 360 px, light and dark

It starts a server with projects of its own (screenshots_world.py) and drives Chromium. A picture that can't be taken is
named at the end, and the others are taken all the same.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import screenshots_world
from annotation_clients import served
from PIL import Image
from playwright.sync_api import Error, sync_playwright
from screenshots_world import World

IMAGES = Path(__file__).parent / "images"
COLOURS = 128  # of a picture's palette; screens of text need few
FLAGS = ["--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb"]
HEIGHTS = {1440: 900, 768: 1024, 360: 740}  # of the window, by its width in CSS pixels


@dataclass(frozen=True)
class Shot:
    """A state of a page: who looks at it, and `act(page, world)`, what they do there. `who(world)` gives a login."""

    act: Callable[[Any, World], None]
    who: Callable[[World], str] | None = None
    width: int = 1440
    height: int | None = None
    dark: bool = False
    language: str = "en"


# --- raters' pages ----------------------------------------------------------------------------------------------


def rate(*keys: str, ready: str = "", at: str = "#concord[data-view=work]") -> Callable[[Any, World], None]:
    """Open the rater's page, wait for `at`, press keys, and wait for `ready`."""

    def act(page: Any, _: World) -> None:
        page.goto("/rate/")
        page.locator(at).wait_for()
        page.wait_for_timeout(400)
        for key in keys:
            page.keyboard.press(key)
            page.wait_for_timeout(250)
        if ready:
            page.locator(ready).first.wait_for()

    return act


def prefer(text: str, *, clearly: int = 2) -> Callable[[Any, World], None]:
    """Say that the response with this text is better: 1 slightly, 2 clearly, 3 much."""

    def act(page: Any, world: World) -> None:
        rate()(page, world)
        first = text in page.locator(".response").first.inner_text()
        page.keyboard.press(str(4 - clearly if first else 4 + clearly))
        page.wait_for_timeout(250)

    return act


def rank(page: Any, world: World) -> None:
    """Rank the haikus, and say how clearly."""
    rate()(page, world)
    ranks = {"pigeons": "1", "plum": "2", "boring": "3", "Here is": "4"}
    for shown in page.locator(".response .body").all_inner_texts():
        page.keyboard.press(next(rank for word, rank in ranks.items() if word in shown))
    page.keyboard.press("1")
    page.wait_for_timeout(250)


def in_depth(page: Any, world: World) -> None:
    """A pair with everything that a project can ask for, half filled in."""
    prefer("casefold")(page, world)
    best_first = "casefold" in page.locator(".response").first.inner_text()
    for row, step in enumerate([4, 2, 2, 2] if best_first else [2, 4, 2, 2]):
        rows = page.locator("#dimensions fieldset, #dimensions [role=radiogroup]")
        rows.nth(row).get_by_role("radio").nth(step).check(force=True)
    page.locator("#rationale").fill("It is right about case and punctuation, and says why.")
    page.locator("#rationale").blur()


def practice(page: Any, world: World) -> None:
    rate("2", "Enter", ready="#feedback:not([hidden])")(page, world)


def rater(project: str, answered: int = 0, **more: Any) -> Callable[[World], str]:
    return lambda world: world.rater(project, answered=answered, **more)


# --- owners' and reviewers' pages -------------------------------------------------------------------------------


def steer(part: str, page: Any, world: World, *, mount: str = "/owner/") -> None:
    number = world.number("Everyday questions")
    page.goto(f"{mount}#/" + (f"projects/{number}/{part}" if part not in ("", "new") else part))
    page.locator("#content > .part:not([aria-busy])").wait_for()
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(700)


def decide(page: Any, world: World, *, voted: bool = False, mount: str = "/owner/") -> None:
    key = "tortilla" if voted else "greek-salad"
    steer(f"items/{world.item('Everyday questions', key)}", page, world, mount=mount)


def new_project(page: Any, world: World) -> None:
    """The form filled in, with a file chosen and its first items shown."""
    steer("new", page, world)
    page.locator("form input[type=text], form input:not([type])").first.fill("Kitchen questions")
    rows = [
        ("q1", "How long do I boil rice?", ["About **12 minutes**, lid on.", "Until it is done."]),
        ("q2", "What is a roux?", ["Flour cooked in fat; it thickens sauces.", "A sauce."]),
    ]
    lines = "\n".join(json.dumps({"id": key, "prompt": prompt, "responses": both}) for key, prompt, both in rows)
    page.locator("input[type=file]").last.set_input_files(
        {"name": "kitchen.jsonl", "mimeType": "application/x-ndjson", "buffer": lines.encode()}
    )
    page.wait_for_timeout(1500)


def export(page: Any, world: World) -> None:
    steer("export", page, world)
    page.wait_for_timeout(1000)


def arena(page: Any, world: World) -> None:
    page.goto("/arena/")
    box = page.locator("textarea").first
    box.wait_for()
    box.fill("How long do I boil eggs?")
    page.keyboard.press("Enter")
    page.get_by_text("This is for large eggs").first.wait_for()
    page.get_by_text("cold water, and count").first.wait_for()
    page.wait_for_timeout(600)


def plain(path: str, page: Any, _: World) -> None:
    page.goto(path)
    page.wait_for_load_state("networkidle")


def owner(_: World) -> str:
    return "olga"


def reviewer(_: World) -> str:
    return "rita"


PAIR = rater("Helpful answers", 5)
GUIDES = {
    "login": Shot(partial(plain, "/login"), height=620),
    "rate-pair": Shot(prefer("casefold"), PAIR),
    "rate-four": Shot(rank, rater("Short texts")),
    "rate-asks": Shot(in_depth, rater("Helpful answers, in depth")),
    "rate-phone": Shot(prefer("vindauga", clearly=1), rater("Helpful answers", 15), width=360, height=780),
    "rate-dark": Shot(prefer("Build"), rater("Helpful answers", 7), dark=True),
    "rate-arabic": Shot(prefer("المقادير"), rater("إجابات مفيدة"), language="ar"),
    "rate-practice": Shot(practice, rater("With practice"), height=760),
    "rate-mine": Shot(rate("h", ready="#mine[open]"), rater("Helpful answers", 8)),
    "owner-overview": Shot(partial(steer, "overview"), owner, height=1000),
    "owner-agreement": Shot(partial(steer, "agreement"), owner, height=1120),
    "owner-raters": Shot(partial(steer, "raters"), owner),
    "owner-items": Shot(partial(steer, "items"), owner),
    "owner-decide": Shot(decide, owner),
    "owner-new-project": Shot(new_project, owner, height=1300),
    "owner-pay": Shot(partial(steer, "pay"), owner, height=760),
    "owner-export": Shot(export, owner),
    "arena": Shot(arena, rater("Side by side")),
}
STATES = GUIDES | {
    "rate-table": Shot(rate(), rater("Helpful answers", 6)),
    "rate-maths": Shot(rate(), rater("Helpful answers", 7)),
    "rate-chinese": Shot(rate(), rater("Helpful answers", 9), language="zh"),
    "rate-german": Shot(rate("5"), rater("Helpful answers", 8), language="de"),
    "rate-chat": Shot(rate(), rater("Helpful answers", 12)),
    "rate-masked": Shot(rate("2"), rater("Helpful answers", 13)),
    "rate-four-asks": Shot(rank, rater("Short texts, in depth")),
    "rate-differs": Shot(rate("d"), rater("Helpful answers", 15)),
    "rate-guidelines": Shot(rate(at="#guidelines[open]"), rater("Helpful answers", read=False)),
    "rate-consent": Shot(rate(at="#concord[data-view=consent]"), rater("A study")),
    "rate-keys": Shot(rate("?", ready="#keys[open]"), PAIR),
    "rate-skip": Shot(rate("s", ready="#skip[open]"), PAIR),
    "rate-flag": Shot(rate("f", ready="#flag[open]"), PAIR),
    "rate-ask": Shot(rate("q", ready="#question[open]"), PAIR),
    "rate-done": Shot(rate(at="#concord[data-view=done]"), rater("Short texts", 3)),
    "account": Shot(partial(plain, "/account"), PAIR),
    "owner-projects": Shot(partial(steer, ""), owner),
    "owner-decided": Shot(partial(decide, voted=True), owner),
    "owner-questions": Shot(partial(steer, "questions"), owner),
    "owner-people": Shot(partial(steer, "people"), owner),
    "owner-gold": Shot(partial(steer, "gold"), owner),
    "owner-settings": Shot(partial(steer, "settings"), owner),
    "owner-arabic": Shot(partial(steer, "overview"), owner, language="ar"),
    "review-overview": Shot(partial(steer, "overview", mount="/review/"), reviewer),
    "review-items": Shot(partial(steer, "items", mount="/review/"), reviewer),
    "review-decided": Shot(partial(decide, voted=True, mount="/review/"), reviewer),
    "refused": Shot(partial(plain, "/owner/"), PAIR),
}


# --- taking them ------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument("--all", metavar="FOLDER", type=Path, help="every state, width and colour, into FOLDER")
    options = parser.parse_args()
    unknown = set(options.names) - STATES.keys()
    if unknown:
        sys.exit(f"no picture is called {', '.join(sorted(unknown))}; there are {', '.join(STATES)}")
    folder = options.all or IMAGES
    folder.mkdir(parents=True, exist_ok=True)
    jobs: list[tuple[str, Shot, int, int, bool]] = []
    if options.all:
        for name in options.names or STATES:
            for width, height in HEIGHTS.items():
                jobs += [
                    (f"{name}-{width}-{'dark' if dark else 'light'}", STATES[name], width, height, dark)
                    for dark in (False, True)
                ]
    else:
        for name in options.names or GUIDES:
            shot = STATES[name]
            jobs.append((name, shot, shot.width, shot.height or HEIGHTS[shot.width], shot.dark))
    failed = []
    with running() as (world, url, browser):
        for name, shot, width, height, dark in jobs:
            try:
                take(world, url, browser, folder / f"{name}.png", shot, width, height, dark)
                print(f"{folder / name}.png, {(folder / f'{name}.png').stat().st_size // 1000} kB", flush=True)
            except (Error, AssertionError) as error:
                print(f"{name}: {str(error).splitlines()[0]}", file=sys.stderr, flush=True)
                failed.append(name)
    if failed:
        sys.exit(f"not taken: {', '.join(failed)}")


@contextmanager
def running() -> Iterator[tuple[World, str, Any]]:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("no Chromium: install Debian's `chromium`, or say where one is in $CHROMIUM")
    with tempfile.TemporaryDirectory() as name, screenshots_world.models(Path(name)) as models:
        world = World(Path(name))
        with (
            served(world.file, pages=True, more=("--models", str(models)), log=subprocess.DEVNULL) as (url, _),
            sync_playwright() as playwright,
        ):
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            yield world, url, browser
            browser.close()
        world.database.engine.dispose()


def take(world: World, url: str, browser: Any, file: Path, shot: Shot, width: int, height: int, dark: bool) -> None:
    context = browser.new_context(
        base_url=url,
        viewport={"width": width, "height": height},
        device_scale_factor=2 if width < 400 else 1,
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
        has_touch=width < 400,
    )
    context.set_default_timeout(20_000)
    try:
        context.add_cookies([{"name": "concord_language", "value": shot.language, "url": url}])
        if shot.who:
            context.add_cookies([{"name": "concord_session", "value": world.token(shot.who(world)), "url": url}])
        page = context.new_page()
        shot.act(page, world)
        page.wait_for_timeout(300)
        page.screenshot(path=file, animations="disabled", caret="hide")
    finally:
        context.close()
    with Image.open(file) as image:
        small = image.convert("RGB").quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small.save(file, optimize=True)


if __name__ == "__main__":
    main()
