"""How long `align winrate` takes for 100,000 judgements: the goal is under 10 seconds on two cores.

    python benchmarks/winrate_speed.py [--judgements N]

The whole command, from start to the printed JSON, with 10,000 bootstrap draws; seconds and processor seconds of a child
process. The files are made up: one pair of models; five models with two judges in both orders and tags; a pair that
people judged; and, the worst case, as many prompts as judgements, with preferences that are all different. Then the
bootstrap alone beside scipy's, on a tenth of the values and draws, which is all that scipy has time for.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from preferences.files import write_jsonl
from preferences.stats.resample import ratio_interval

COMMAND = [sys.executable, "-c", "from align.cli import main; main()", "winrate"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judgements", type=int, default=100_000)
    count = parser.parse_args().judgements
    cores, load = os.cpu_count(), os.getloadavg()[0]
    print(f"{platform.machine()}, {cores} cores, load {load:.0f}, Python {platform.python_version()}\n")
    print("| judgements | pairs of models | prompts a pair | seconds | processor seconds |\n|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    for name, rows in (
        ("wins, ties and losses, one judge", plain(rng, count)),
        ("five models, two judges, both orders, tags", many(rng, count)),
        ("40 people", people(rng, count)),
        ("all preferences different", different(rng, count)),
    ):
        with tempfile.TemporaryDirectory() as folder:
            write_jsonl(Path(folder) / "judgements.jsonl", rows)
            begun, used = time.monotonic(), _used()
            said = subprocess.run(
                [*COMMAND, f"{folder}/judgements.jsonl", "--json"], check=True, capture_output=True
            ).stdout
            seconds, used = time.monotonic() - begun, _used() - used
        pairs = json.loads(said)["pairs"]
        prompts = f"{pairs[0]['n']:,}"
        print(f"| {len(rows):,}: {name} | {len(pairs)} | {prompts} | {seconds:.1f} | {used:.1f} |", flush=True)
    print()
    beside_scipy(rng.random(count // 10))


def beside_scipy(values: Any) -> None:
    ones = np.ones_like(values)
    used = time.process_time()
    theirs = bootstrap((values,), np.mean, n_resamples=1000, method="BCa", batch=100, rng=0).confidence_interval
    between = time.process_time()
    ours = ratio_interval(values, ones, resamples=1000)[0]
    seconds = time.process_time() - between
    print(f"BCa of {len(values):,} different values, 1,000 draws, processor seconds: scipy {between - used:.2f}, ours")
    print(f"{seconds:.2f}; intervals {theirs[0]:.4f} to {theirs[1]:.4f} and {ours[0]:.4f} to {ours[1]:.4f}.")


def row(prompt: int, candidate: str, baseline: str, preference: float, lengths: Any) -> dict[str, Any]:
    return {
        "prompt": f"prompt {prompt}",
        "candidate": candidate,
        "baseline": baseline,
        "preference": preference,
        "candidate_length": int(lengths[0]),
        "baseline_length": int(lengths[1]),
    }


def plain(rng: Any, count: int) -> list[dict[str, Any]]:
    values, lengths = rng.choice([0.0, 0.5, 1.0], count, p=[0.35, 0.15, 0.5]), rng.integers(50, 2000, (count, 2))
    return [row(place, "dpo", "base", float(values[place]), lengths[place]) for place in range(count)]


def many(rng: Any, count: int) -> list[dict[str, Any]]:
    pairs = list(combinations(["base", "sft", "dpo", "ppo", "best of 4"], 2))
    rows = []
    for place in range(count // (4 * len(pairs))):
        for one, other in pairs:
            lengths = rng.integers(50, 2000, 2)
            for judge in ("gpt", "llama"):
                for order in (0, 1):
                    value = float(rng.choice([0.0, 0.5, 1.0], p=[0.35, 0.15, 0.5]))
                    more = {"judge": judge, "order": order, "tags": [f"tag {place % 5}"]}
                    rows.append({**row(place, one, other, value, lengths), **more})
    return rows


def people(rng: Any, count: int) -> list[dict[str, Any]]:
    rows = []
    for place in range(count // 3):
        lengths = rng.integers(50, 2000, 2)
        for rater in rng.choice(40, 3, replace=False):
            value = float(rng.choice([0.0, 0.5, 1.0], p=[0.35, 0.15, 0.5]))
            rows.append({**row(place, "dpo", "base", value, lengths), "rater": f"r{rater}"})
    return rows


def different(rng: Any, count: int) -> list[dict[str, Any]]:
    values, lengths = rng.random(count), rng.integers(50, 2000, (count, 2))
    return [row(place, "dpo", "base", float(values[place]), lengths[place]) for place in range(count)]


def _used() -> float:
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


if __name__ == "__main__":
    main()
