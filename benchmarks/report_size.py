"""How large is a report, and how long until it stands on the screen? 5 models × 2,000 prompts, in a real Chromium.

    python benchmarks/report_size.py [--models 5] [--prompts 2000] [--words 120 600] [--runs 7] [--json]

An evaluation is made up: responses of so many words, three judges (people, a gold and another reward model), ten tags,
a challenge set. The page is written as `align evaluate` writes it, and opened from the disk in a fresh context.
"painted" is from the start of the navigation until two frames after the load event, so that layout and painting are in;
"filtered" from a click on "Losses" until two frames later. Medians over the runs; the worst run stands beside.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from playwright.sync_api import sync_playwright

from align.report.card import write_cards
from align.report.html import write_report
from preferences.stats.pair import pair_fields
from preferences.stats.winrate import mean_interval

MOST_SECONDS, MOST_BYTES = 2.0, 15_000_000
FLAGS = ["--no-sandbox", "--disable-gpu"]
JUDGES = {"people": "people", "gold": "reward model", "reward": "reward model"}
VOCABULARY = ["the", "a", "boil", "egg", "water", "minute", "<b>", "&", '"soft"', "yolk", "perhaps", "never", "€", "。"]
FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"


def evaluation(models: int, prompts: int, words: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """metrics.json and samples.jsonl, made up."""
    draw = random.Random(0)
    names = ["base", *(f"model {number}" for number in range(1, models))]

    def text(count: int) -> str:
        return " ".join(draw.choices(VOCABULARY, k=count))

    samples = []
    for number in range(prompts):
        responses = {name: text(max(1, int(draw.gauss(words, words / 3)))) for name in names}
        scores = {judge: {name: draw.gauss(0, 1) for name in names} for judge in ("gold", "reward")}
        said = {judge: {name: draw.choice((0.0, 0.5, 1.0)) for name in names[1:]} for judge in JUDGES}
        tags = [f"tag {draw.randrange(10)}"]
        where = "safety" if number % 20 == 0 else ""
        turns = [{"role": "user", "content": f"{number}: {text(25)}"}]
        row = {"id": str(number), "set": where, "tags": tags, "prompt": turns, "responses": responses}
        samples.append({**row, "scores": scores, "preferences": said, "tokens": {name: words for name in names}})

    def pairs(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            judge: pair_fields([row["preferences"][judge][name] for row in rows], resamples=300) for judge in JUDGES
        }

    length = {name: mean_interval([len(row["responses"][name]) for row in samples], resamples=300) for name in names}
    metrics = {
        "format": 1,
        "base": "base",
        "prompts": prompts,
        "verdict_by": "people",
        "judges": {judge: {"kind": kind, "gold": judge == "gold", "source": judge} for judge, kind in JUDGES.items()},
        "models": {
            name: {
                "judges": {} if name == "base" else pairs(name, samples),
                "length": length[name],
                "tags": {}
                if name == "base"
                else {f"tag {n}": pairs(name, [r for r in samples if r["tags"] == [f"tag {n}"]]) for n in range(10)},
            }
            for name in names
        },
    }
    return metrics, samples


def opened(path: Path, runs: int) -> tuple[list[float], list[float]]:
    """Seconds until painted, and until filtered, of each run."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    painted, filtered = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        for _ in range(runs):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            tab = context.new_page()
            tab.goto(path.as_uri(), wait_until="load")
            painted.append(tab.evaluate(FRAMES) / 1000)
            tab.locator(".filters").scroll_into_view_if_needed()
            start = tab.evaluate("performance.now()")
            tab.evaluate("document.querySelector('#o-l').click()")
            filtered.append((tab.evaluate(FRAMES) - start) / 1000)
            context.close()
        browser.close()
    return painted, filtered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--words", type=int, nargs="+", default=[120, 600])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows = []
    for words in asked.words:
        metrics, samples = evaluation(asked.models, asked.prompts, words)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            path = write_report(Path(folder), metrics, samples)
            write_cards(Path(folder), metrics)
            wrote = time.perf_counter() - start
            painted, filtered = opened(path, asked.runs)
            rows.append(
                {
                    "words": words,
                    "samples_bytes": sum(len(json.dumps(row)) for row in samples),
                    "report_bytes": path.stat().st_size,
                    "examples": path.read_text(encoding="utf-8").count('<li class="example'),
                    "write_seconds": wrote,
                    "painted_seconds": statistics.median(painted),
                    "painted_worst": max(painted),
                    "filtered_seconds": statistics.median(filtered),
                    "filtered_worst": max(filtered),
                }
            )
    if asked.json:
        print(json.dumps({"format": 1, "models": asked.models, "prompts": asked.prompts, "rows": rows}, indent=2))
        return
    print(f"{asked.models} models × {asked.prompts:,} prompts, {asked.runs} openings each\n")
    print("| words a response | samples.jsonl | report.html | examples on it | written in | painted in | filtered in |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['words']} | {row['samples_bytes'] / 1e6:.1f} MB | {row['report_bytes'] / 1e6:.2f} MB "
            f"| {row['examples']} | {row['write_seconds']:.2f} s "
            f"| {row['painted_seconds']:.2f} s (worst {row['painted_worst']:.2f}) "
            f"| {row['filtered_seconds']:.2f} s (worst {row['filtered_worst']:.2f}) |"
        )
    slow, large = max(row["painted_worst"] for row in rows), max(row["report_bytes"] for row in rows)
    print(
        f"\nOf the 2 s that it may take the slowest opening used {slow / MOST_SECONDS:.0%}; of the 15 MB that it may "
        f"have the largest page {large / MOST_BYTES:.0%}."
    )


if __name__ == "__main__":
    main()
