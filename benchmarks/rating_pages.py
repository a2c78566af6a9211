"""How many key presses does an answer cost, and how long does a rater wait for the next item, in a real browser?

    python benchmarks/rating_pages.py [--raters 0 100] [--answers 60] [--reading S] [--no-label-studio] [--json]

One script drives two pages in Chromium by the same keys, as fast as they allow: our rater's page, and Label Studio's,
with the same pairs, the same seven steps, and as many other raters at work over either system's API (one answer in 30
seconds each). The wait is from the key press that submits until the next item is painted and the page lets it be
answered; a frame takes 17 ms. Whether it really does is tried: a choice that the page does not take is pressed again,
and counted.

Label Studio's Pairwise tag has no hotkeys, so it is driven three ways: as its template is, by mouse and Ctrl+Enter; as
a choice of seven steps with a hotkey each and Ctrl+Enter; and with its submit hotkey put on Enter, which each of its
users can do in their settings. The last is the best that it can be; ours is compared with that.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import annotation_clients as clients
import httpx
import label_studio_peer as label_studio

PAUSE = 30.0  # seconds between two answers of each of the other raters
OVERLAP = 3
GOALS = """Goals, with 100 others: the next item within 400 ms, saved within 300 ms at p95, and at most half of Label
Studio's time and key presses."""

# What both pages are watched with. `ready()` names the item that can be answered now, `chosen()` says whether a choice
# is made, `saved()` whether everything is acknowledged, `submits(event)` whether a key sends the answer.
WATCH = """
window.bench = { waits: [], receipts: [], unsaved: [], pressed: null, was: null };
(() => {
  const bench = window.bench;
  Object.assign(bench, { %s });
  document.addEventListener("keydown", (event) => {
    if (!bench.submits(event)) return;
    bench.pressed = performance.now();
    bench.was = bench.ready();
    bench.unsaved.push(bench.pressed);
  }, { capture: true });
  let seen = null;
  const look = () => {
    const now = performance.now(), here = bench.ready();
    if (bench.pressed !== null && seen !== null && seen === here) { // the frame before was painted with it
      bench.waits.push(now - bench.pressed);
      bench.pressed = seen = null;
    }
    seen = bench.pressed !== null && here !== null && here !== bench.was && !bench.chosen() ? here : null;
    if (bench.saved()) bench.receipts.push(...bench.unsaved.splice(0).map((then) => now - then));
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})();
"""
OURS = """
  ready() {
    const page = document.querySelector("#concord[data-view=work]:not(.busy)");
    const prompt = page?.querySelector("#prompt");
    return prompt?.getClientRects().length && document.querySelector(".response .body") ? prompt.innerText : null;
  },
  chosen: () => Boolean(document.querySelector("#scale input:checked")),
  saved: () => document.querySelector("#receipt")?.textContent.startsWith("Saved"),
  submits: (event) => event.key === "Enter" && bench.chosen(),
"""
THEIRS = """
  ready() {
    const prompt = document.querySelector(".lsf-richtext__line");
    const button = document.querySelector("button[name=submit]");
    return prompt?.getClientRects().length && button && !button.disabled && button.dataset.waiting === "false"
      ? prompt.closest(".lsf-object, .lsf-richtext__container, div").innerText : null;
  },
  chosen: () => Boolean(document.querySelector(".ant-radio-wrapper-checked, .border-primary-border-subtle")),
  saved: () => false,
  submits: (event) => event.key === "Enter" && bench.chosen(),
"""
WAYS = [  # to rate with Label Studio: words, project, keys that submit
    ("Pairwise, by mouse and Ctrl+Enter", 1, "Control+Enter"),
    ("hotkeys and Ctrl+Enter", 2, "Control+Enter"),
    ("hotkeys and Enter", 2, "Enter"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


@dataclass
class Run:
    """What one browser has seen; times in ms."""

    page: str
    others: int
    ours: bool = False
    answers: int = 0
    presses: int = 0  # keys that went down, and mouse buttons
    again: int = 0  # choices that the page did not take at once
    waits: list[float] = field(default_factory=list)
    receipts: list[float] = field(default_factory=list)
    at_work: dict[str, float] = field(default_factory=dict)  # the others: answers, errors, p95 in ms

    def facts(self) -> dict[str, Any]:
        median, p95 = _cuts(self.waits)
        saved = _cuts(self.receipts)[1] if self.receipts else None
        counts = {"answers": self.answers, "presses": self.presses / max(1, self.answers), "again": self.again}
        name = {"page": self.page, "others": self.others, "ours": self.ours}
        return {**name, **counts, "median": median, "p95": p95, "saved_p95": saved, "at_work": self.at_work}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raters", type=int, nargs="+", default=[0, 100], help="others who are at work meanwhile")
    parser.add_argument("--answers", type=int, default=60, help="of each page")
    parser.add_argument("--reading", type=float, default=0, help="seconds before each choice [default: none]")
    parser.add_argument("--limit", type=float, default=240, help="seconds after which a page is left, done or not")
    parser.add_argument("--label-studio", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("no Chromium: install Debian's `chromium`, or say where one is in $CHROMIUM")

    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.default_int_handler)  # stopped half-way, it ends the servers that it has started
    runs: list[Run] = []
    began, busy, own = time.perf_counter(), clients.busy_seconds(), clients.cpu_seconds(os.getpid())
    with tempfile.TemporaryDirectory() as name:
        for system in [concord, *([their] if options.label_studio and _there() else [])]:
            for run in system(chromium, Path(name), options):
                runs.append(run)
                print(json.dumps(run.facts()), file=sys.stderr, flush=True)
    spent = clients.cpu_seconds(os.getpid()) - own
    others = (clients.busy_seconds() - busy - spent) / (time.perf_counter() - began)
    facts = [run.facts() for run in runs]
    print(json.dumps({"cores": os.cpu_count(), "other_work": others, "runs": facts}, indent=1) if options.json else "")
    if not options.json:
        print(_report(facts, others, options))


def _there() -> bool:
    if label_studio.python() is None:
        print("Label Studio is not there, so our page stands alone.", file=sys.stderr)
        return False
    return True


# --- the two systems --------------------------------------------------------------------------------------------


def concord(chromium: str, folder: Path, options: argparse.Namespace) -> Iterator[Run]:
    for others in options.raters:
        where = str(folder / f"concord-{others}.db")
        clients.fill(where, raters=others + 1, items=clients.items(_items(others, options)), overlap=OVERLAP)
        with clients.served(where, pages=True, log=sys.stderr) as (url, _), _page(chromium, OURS) as page:
            page.goto(url + "/login")
            page.fill("input[name=login]", f"rater{others}")
            page.fill("input[name=password]", clients.PASSWORD)
            page.keyboard.press("Enter")
            page.locator("#concord[data-view=work]").wait_for()
            with at_work(clients.Rater, url, others) as counts:
                run = drive(Run("Concord", others, ours=True, at_work=counts), page, options)
            yield run


def their(chromium: str, folder: Path, options: argparse.Namespace) -> Iterator[Run]:
    most = max(options.raters)
    items = clients.items(_items(most, options))
    configs = (label_studio.CONFIG, label_studio.BY_KEYBOARD)
    with label_studio.served(folder / "label-studio", most, items, 1000, configs) as (url, _):
        for others in options.raters:
            with at_work(label_studio.Rater, url, others) as counts:
                for name, project, submit in WAYS:
                    run = Run(f"Label Studio {label_studio.VERSION}, {name}", others, at_work=counts)
                    yield _their_page(run, chromium, url, project, submit, options)


def _their_page(run: Run, chromium: str, url: str, project: int, submit: str, options: argparse.Namespace) -> Run:
    keys = {"annotation:annotation:submit": submit.replace("Control", "ctrl").lower()}
    keys["regions:region:focus"] = "alt+f"  # Enter, unless said otherwise
    _put_hotkeys(url, keys)
    with _page(chromium, THEIRS) as page:
        page.goto(url + "/user/login/")
        page.fill("input[name=email]", label_studio.OWNER[0])
        page.fill("input[name=password]", label_studio.OWNER[1])
        page.keyboard.press("Enter")
        page.wait_for_load_state("networkidle")
        page.goto(f"{url}/projects/{project}/data?labeling=1")
        return drive(run, page, options, submit=submit, by_mouse=project == 1)


def _put_hotkeys(url: str, keys: dict[str, str]) -> None:
    """As somebody does in the settings of their account."""
    hotkeys = {name: {"key": key, "active": True} for name, key in keys.items()}
    headers = {"Authorization": f"Token {label_studio.TOKEN.format('owner')}"}
    address = url + "/api/current-user/hotkeys/"
    httpx.patch(address, json={"custom_hotkeys": hotkeys}, headers=headers, timeout=60).raise_for_status()


def _items(others: int, options: argparse.Namespace) -> int:
    """Enough that nobody runs out."""
    return 200 + options.answers + others * 20


# --- the rater in the browser -----------------------------------------------------------------------------------


@contextmanager
def _page(chromium: str, system: str) -> Iterator[Any]:
    """A page of a browser of its own, watched as `system` says."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
        page.set_default_timeout(120_000)
        page.add_init_script(WATCH % system)
        yield page
        browser.close()


def drive(run: Run, page: Any, options: argparse.Namespace, *, submit: str = "Enter", by_mouse: bool = False) -> Run:
    """Answer as fast as the page allows, until it has been enough or too long."""
    end = time.monotonic() + options.limit
    page.wait_for_function("bench.ready() !== null")
    time.sleep(2)  # the page comes to rest
    while run.answers < options.answers and time.monotonic() < end:
        time.sleep(options.reading)
        while not _choose(run, page, by_mouse):
            run.again += 1
            if time.monotonic() > end:
                sys.exit(f"{run.page}: no choice is taken")
        page.keyboard.press(submit)
        run.presses += 1 + submit.count("+")
        page.wait_for_function("bench.pressed === null", polling=5)
        run.answers += 1
    if run.ours:
        page.wait_for_function("bench.unsaved.length === 0")
    run.waits, run.receipts = page.evaluate("[bench.waits, bench.receipts]")
    assert len(run.waits) == run.answers, (run.answers, run.waits)
    return run


def _choose(run: Run, page: Any, by_mouse: bool) -> bool:
    """Make a choice by one press; whether the page has taken it within a second and a half."""
    run.presses += 1
    if by_mouse:
        page.locator(".lsf-richtext__container").nth(random.choice((1, 2))).click(position={"x": 60, "y": 20})
    else:
        page.keyboard.press(str(random.randint(1, 7)))
    patience = time.monotonic() + 1.5
    while time.monotonic() < patience:
        if page.evaluate("bench.chosen()"):
            return True
        time.sleep(0.005)
    return False


# --- the others, in a process of their own ----------------------------------------------------------------------


@contextmanager
def at_work(rater: type, url: str, number: int) -> Iterator[dict[str, float]]:
    """So many raters at work over the API inside the block; afterwards the dict says what they did."""
    counts: dict[str, float] = {}
    if not number:
        yield counts
        return
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_others, args=(there, rater, url, number), daemon=True)
    process.start()
    there.close()
    try:
        here.recv()  # all have a task now
        yield counts
        here.send("enough")
        times, errors = here.recv()
        counts.update(answers=len(times), errors=errors, p95=_cuts(times)[1])
    finally:
        process.join(timeout=30)
        process.kill()


def _others(pipe: Any, rater: type, url: str, number: int) -> None:
    asyncio.run(_work(pipe, [rater(url, one) for one in range(number)]))


async def _work(pipe: Any, raters: list[Any]) -> None:
    times: list[float] = []
    errors: Counter[str] = Counter()
    await clients.a_few_at_once(lambda one: one.sign_in(), raters)
    await clients.a_few_at_once(lambda one: one.next(), raters)

    async def work(one: Any) -> None:
        await asyncio.sleep(random.uniform(0, PAUSE))
        while True:
            before = time.perf_counter()
            try:
                if one.task is None and await one.next() is None:
                    errors["ran out of items"] += 1
                    return
                await one.submit(one.submission())
                times.append((time.perf_counter() - before) * 1000)
            except (clients.Failed, ConnectionError, TimeoutError) as error:
                errors[str(error)] += 1
                one.task = None
            await asyncio.sleep(max(0.0, PAUSE - (time.perf_counter() - before)))

    tasks = [asyncio.create_task(work(one)) for one in raters]
    pipe.send("ready")
    await asyncio.to_thread(pipe.recv)
    for task in tasks:
        task.cancel()
    pipe.send((times, sum(errors.values())))


# --- the table --------------------------------------------------------------------------------------------------


def _cuts(times: list[float]) -> tuple[float, float]:
    """(median, p95)"""
    if len(times) < 2:
        return (times or [float("nan")])[0], (times or [float("nan")])[0]
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return cuts[49], cuts[94]


def _report(runs: list[dict[str, Any]], other_work: float, options: argparse.Namespace) -> str:
    lines = [
        f"{os.cpu_count()} cores, which servers, database, browser and raters share; other work had {other_work:.2f} of"
        " them.",
        "",
        "| others at work | page | answers | presses an answer | pressed again | next item: median ms | p95 ms"
        " | saved: p95 ms | the others: answers, errors, p95 ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in runs:
        saved = "" if one["saved_p95"] is None else f"{one['saved_p95']:.0f}"
        work = one["at_work"]
        words = f"{work['answers']:.0f}, {work['errors']:.0f}, {work['p95']:.0f}" if work else ""
        lines.append(
            f"| {one['others']} | {one['page']} | {one['answers']} | {one['presses']:.2f} | {one['again']} |"
            f" {one['median']:.0f} | {one['p95']:.0f} | {saved} | {words} |"
        )
    lines += ["", GOALS, ""]
    return "\n".join(lines + [line for others in options.raters for line in _judge(runs, others)])


def _judge(runs: list[dict[str, Any]], others: int) -> list[str]:
    here = [one for one in runs if one["others"] == others]
    ours = next(one for one in here if one["ours"])

    def said(words: str, number: float, limit: float, unit: str) -> str:
        shown = f"{number:.2f}" if unit == "times" else f"{number:.0f}"
        return (
            f"* {others} others, {words}: {shown} {unit}, {'reached' if number <= limit else 'missed'} ({limit} {unit})"
        )

    lines = [
        said("next item, median", ours["median"], 400, "ms"),
        said("next item, p95", ours["p95"], 400, "ms"),
        said("saved, p95", ours["saved_p95"], 300, "ms"),
    ]
    for one in here:
        if not one["ours"]:
            lines.append(said(f"wait beside {one['page']}", ours["median"] / one["median"], 0.5, "times"))
            lines.append(said(f"presses beside {one['page']}", ours["presses"] / one["presses"], 0.5, "times"))
    return lines


if __name__ == "__main__":
    main()
