"""How long an audit of 160,000 pairs takes: the goal is under two minutes on two cores.

    python benchmarks/audit_speed.py [--data FILE] [--pairs N]

The pairs are as long and have as many turns as those of HH-RLHF, whose training set has 160,800; every turn is made of
sentences drawn from its harmless-base test set (Bai et al. 2022, MIT). Into them go copies, near copies, pairs turned
round and a held-out set that shares prompts with them, of which the table says how many were found. Times are of the
whole command, from reading the file to writing the page.
"""

import argparse
import gzip
import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from preferences.files import write_jsonl

PLANTED = 500  # of each kind
MEASURED = """
import json, resource
from align.cli import align
if __name__ == "__main__":
    try:
        align(standalone_mode=False)
    finally:
        own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        seconds = {"self": own.ru_utime + own.ru_stime, "children": others.ru_utime + others.ru_stime}
        print(json.dumps({**seconds, "memory": own.ru_maxrss / 1e6}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/hh-rlhf-harmless-base-test/harmless-base-test.jsonl.gz")
    parser.add_argument("--pairs", type=int, default=160_000)
    options = parser.parse_args()
    if not Path(options.data).is_file():
        sys.exit(f"error: {options.data} is not there; give HH-RLHF's harmless-base/test.jsonl.gz with --data")
    with gzip.open(options.data, "rt", encoding="utf-8") as stream:
        source = [json.loads(line) for line in stream]
    with tempfile.TemporaryDirectory() as folder:
        train, test = Path(folder) / "train.jsonl", Path(folder) / "test.jsonl"
        rows, held_out = made(source, options.pairs, random.Random(0))
        write_jsonl(train, rows)
        write_jsonl(test, held_out)
        print(table(train, test, len(rows), len(held_out)))


def made(source: list[dict[str, str]], count: int, chance: random.Random) -> tuple[list[dict], list[dict]]:
    """(pairs, held-out pairs), with `PLANTED` of each kind: copies, near copies, turned round, prompts held out."""
    sentences = sorted({part for row in source for part in re.split(r"(?<=[.!?])\s+", row["chosen"]) if len(part) > 20})

    def text(length: int) -> str:
        parts = [chance.choice(sentences)]
        while sum(map(len, parts)) < length:
            parts.append(chance.choice(sentences))
        return " ".join(parts).replace("\n\nHuman:", "").replace("\n\nAssistant:", "")

    def pair() -> dict:
        shape = chance.choice(source)
        turns = re.split(r"\n\n(Human|Assistant): ?", shape["chosen"])[1:]
        said = [f"\n\n{who}: {text(len(words) // 2)}" for who, words in zip(turns[::2], turns[1::2], strict=True)]
        ends = [text(len(shape[side].rpartition("Assistant:")[2]) // 2) for side in ("chosen", "rejected")]
        prompt = "".join(said[:-1]) + "\n\nAssistant: "
        return {"chosen": prompt + ends[0], "rejected": prompt + ends[1]}

    rows = [pair() for _ in range(count - 3 * PLANTED)]
    some = chance.sample(rows, 5 * PLANTED)
    copies, near, turned, same_prompt, near_prompt = (some[n::5] for n in range(5))
    rows += [dict(row) for row in copies]
    rows += [{"chosen": row["chosen"] + " Yes.", "rejected": row["rejected"] + " Yes."} for row in near]
    rows += [{"chosen": row["rejected"], "rejected": row["chosen"]} for row in turned]
    chance.shuffle(rows)
    held_out = [pair() for _ in range(2000 - 2 * PLANTED)] + same_prompt
    held_out += [{side: re.sub(r"^\n\nHuman: ", "\n\nHuman: So: ", row[side]) for side in row} for row in near_prompt]
    return rows, held_out


def table(train: Path, test: Path, rows: int, held_out: int) -> str:
    """Run the command, and say what it took and found."""
    out = train.parent / "audit"
    command = ["audit", str(train), "--eval", str(test), "--out", str(out), "--allow", "leakage"]
    started = time.monotonic()
    said = subprocess.run([sys.executable, "-c", MEASURED, *command], check=True, capture_output=True, text=True).stdout
    seconds = time.monotonic() - started
    used = json.loads(said.splitlines()[-1])
    found = {check["check"]: check for check in json.loads((out / "audit.json").read_text())["checks"]}
    size = train.stat().st_size / 1e6
    return "\n".join(
        [
            f"{rows:,} pairs, {size:.0f} MB, against {held_out:,} held-out ones; {platform.machine()},"
            f" {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}, Python {platform.python_version()}",
            "",
            "| what | value |",
            "|---|---|",
            f"| seconds from start to end | {seconds:.0f} |",
            f"| processor seconds of the first process | {used['self']:.0f} |",
            f"| processor seconds of the second process | {used['children']:.0f} |",
            f"| memory of the first process, GB | {used['memory']:.1f} |",
            f"| copies found, of {PLANTED} planted | {found['duplicates']['count']} |",
            f"| near copies found, of {PLANTED} planted | {found['near_duplicates']['count']} |",
            f"| rows of pairs both ways, of {2 * PLANTED} | {found['contradictions']['count']} |",
            f"| held-out rows that leak, of {2 * PLANTED} | {found['leakage']['count']} |",
        ]
    )


if __name__ == "__main__":
    main()
