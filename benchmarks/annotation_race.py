"""Two hundred raters race for the last slot of an item: does anybody get one too many, or no clear answer?

    python benchmarks/annotation_race.py [--raters 200] [--rounds 40] [--database sqlite|postgresql|both] [--json]

In every round one item is new, and wants two answers. One rater has given the first; then all the others ask for the
item at the same moment, and whoever gets it submits. One of them may have it, and the rest must be told that nothing is
left. In the second race leases are over as soon as they begin, so that everybody is given the same item in turn, and
all submit at the same moment: every answer must be kept, and as many counted as the item wants.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import annotation_clients as clients

OVERLAP = 2
NO_LEASE = "import annotate.services.assignment as assignment; assignment.LEASE_SECONDS = -1.0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raters", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=40, help="of the first race")
    parser.add_argument("--late-rounds", type=int, default=10, help="of the second race, with leases that are over")
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--folder", help="on the disk to use [default: temporary]")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    kinds = ["sqlite", "postgresql"] if options.database == "both" else [options.database]
    results = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name, clients.databases(kinds, Path(name)) as new_database:
        for kind in kinds:
            results.append(_race(kind, new_database(kind), options.raters, options.rounds, late=False))
            results.append(_race(kind, new_database(kind), options.raters, options.late_rounds, late=True))
    print(json.dumps(results, indent=1) if options.json else _table(results))
    if any(one["above"] or one["lost"] or one["duplicates"] or one["unclear"] or one["wrong"] for one in results):
        sys.exit("a slot was handed out twice, or somebody got no clear answer")


def _race(kind: str, where: str, raters: int, rounds: int, *, late: bool) -> dict[str, Any]:
    clients.fill(where, raters=raters, items=[], overlap=OVERLAP)
    with clients.served(where, before=NO_LEASE if late else "", log=sys.stderr) as (url, _):
        result, acknowledged = asyncio.run(_rounds(url, where, raters, rounds, late))
    found = clients.count_answers(where, acknowledged)
    print(f"{kind}: {found}", file=sys.stderr, flush=True)
    return {
        "database": kind,
        "late": late,
        "raters": raters,
        "rounds": rounds,
        **result,
        "stored": found.stored,
        "surplus": found.surplus,
        "counted": found.stored - found.surplus,
        "lost": found.lost,
        "duplicates": found.duplicates,
        "above": found.above,
        "wrong": found.stored - found.surplus != rounds * OVERLAP or found.unread,
    }


async def _rounds(url: str, where: str, number: int, rounds: int, late: bool) -> tuple[dict[str, Any], dict[str, int]]:
    raters = [clients.Rater(url, one, resend=True) for one in range(number)]
    await clients.a_few_at_once(clients.Rater.sign_in, raters)
    acknowledged: dict[str, int] = {}
    said: Counter[str] = Counter()
    seconds = 0.0

    async def ask(rater: clients.Rater) -> None:
        """Ask for an item; every answer but an item or "nothing left" is counted under its own name."""
        try:
            said["an item" if await rater.next() else "nothing left"] += 1
        except clients.Failed as error:
            rater.task = None
            said[f"refused: {error}"] += 1
        except (ConnectionError, TimeoutError) as error:
            rater.task = None
            said[f"no answer: {type(error).__name__}"] += 1

    async def submit(rater: clients.Rater) -> None:
        submission = rater.submission()
        try:
            receipt = await rater.submit(submission)
            acknowledged[submission["key"]] = receipt["answer"]
            said["answer kept, not counted" if receipt["surplus"] else "answer counted"] += 1
        except clients.Failed as error:
            said[f"answer refused: {error}"] += 1
        except (ConnectionError, TimeoutError) as error:
            said[f"no answer: {type(error).__name__}"] += 1

    for number in range(rounds):
        first = raters[number % len(raters)]
        others = [rater for rater in raters if rater is not first]
        clients.add_items(where, clients.items(1, start=number))
        before = time.perf_counter()
        if late:
            for rater in raters:  # in turn: nobody is given a slot while somebody else is just being given it
                await ask(rater)
            await asyncio.gather(*(submit(rater) for rater in raters if rater.task))
        else:
            await ask(first)
            await submit(first)
            await asyncio.gather(*map(ask, others))
            await asyncio.gather(*(submit(rater) for rater in others if rater.task))
        seconds += time.perf_counter() - before
    unclear = sum(count for words, count in said.items() if words.startswith("no answer") or ": 5" in words)
    requests = sum(said.values())
    return {"requests": requests, "said": dict(said), "unclear": unclear, "seconds": seconds}, acknowledged


def _table(results: list[dict[str, Any]]) -> str:
    lines = [
        "",
        "| database | race | items | requests | answers counted | kept, not counted | lost | stored twice"
        " | items above their overlap | no clear answer | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in results:
        race = "leases over, all submit" if one["late"] else "for the last slot"
        lines.append(
            f"| {one['database']} | {one['raters']} {race} | {one['rounds']} | {one['requests']} | {one['counted']}"
            f" | {one['surplus']} | {one['lost']} | {one['duplicates']} | **{one['above']}** | **{one['unclear']}**"
            f" | {one['seconds']:.0f} |"
        )
    lines += ["", "What the raters were told:", ""]
    for one in results:
        told = ", ".join(f"{words} {count}" for words, count in sorted(one["said"].items()))
        lines.append(f"* {one['database']}, {'leases over' if one['late'] else 'last slot'}: {told}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
