"""Is an acknowledged answer ever lost when the annotation server is killed? A thousand `kill -9` while raters submit.

    python benchmarks/annotation_kill.py [--kills 1000] [--postgresql-kills 200] [--folder PATH] [--json]

This process imports the application once and forks a child that opens the database and serves. At a random moment the
child gets a SIGKILL, and the next one is forked. Meanwhile raters, in a process of their own, submit back to back;
whoever loses the connection sends the same answer with the same key again until it is acknowledged, that is, until the
response 200 has been read. In the end the raters' journal is compared with the database. On SQLite the database file
is checked after every 50th kill, before a server opens it again.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import annotation_clients as clients

RATERS = 12
ITEMS_A_KILL = 15
CHECK_EVERY = 50
LONGEST_LIFE = 1.2  # seconds from a server's first connection to its kill
AGAIN = 0.03  # seconds until a rater tries again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="on SQLite")
    parser.add_argument("--postgresql-kills", type=int, default=200, help="of the server on PostgreSQL, which lives on")
    parser.add_argument("--folder", help="on the disk to use [default: temporary]")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    plan = {"sqlite": options.kills, "postgresql": options.postgresql_kills}
    plan = {kind: kills for kind, kills in plan.items() if kills}
    with tempfile.TemporaryDirectory(dir=options.folder) as name, clients.databases(list(plan), Path(name)) as new:
        fsync = clients.fsync_ms(Path(name))
        results = [_rounds(kind, new(kind), kills) for kind, kills in plan.items()]
    print(json.dumps({"fsync_ms": fsync, "results": results}, indent=1) if options.json else _table(results, fsync))
    if any(one["lost"] or one["duplicates"] or one["above"] or one["damaged"] for one in results):
        sys.exit("an answer was lost or stored twice, or the database was damaged")


def _rounds(kind: str, where: str, kills: int) -> dict[str, Any]:
    clients.fill(where, raters=RATERS, items=clients.items(kills * ITEMS_A_KILL), overlap=3)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    here, there = multiprocessing.Pipe()
    began = time.perf_counter()
    child, ready_after = _start(where, port), []
    process = multiprocessing.get_context("spawn").Process(target=_clients, args=(there, url))
    process.start()
    here.recv()  # all have a task
    checks = damaged = 0
    for number in range(1, kills + 1):
        time.sleep(random.uniform(0, LONGEST_LIFE))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if kind == "sqlite" and number % CHECK_EVERY == 0:
            checks += 1
            damaged += not _sound(where)
        before = time.perf_counter()
        child = _start(where, port)
        ready_after.append(time.perf_counter() - before)
        if number % CHECK_EVERY == 0:
            print(f"{kind}: {number} of {kills} kills", file=sys.stderr, flush=True)
    here.send("enough")
    journal, facts = here.recv()
    process.join()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    minutes = (time.perf_counter() - began) / 60
    found = clients.count_answers(where, {key: entry["answer"] for key, entry in journal.items()})
    again = {key: entry for key, entry in journal.items() if entry["tries"] > 1}
    return {
        "database": kind,
        "kills": kills,
        "acknowledged": len(journal),
        "stored": found.stored,
        "lost": found.lost,
        "duplicates": found.duplicates,
        "above": found.above,
        "unread": found.unread,
        "cut_off": facts["cut_off"],
        "sent_again": len(again),
        "found_stored": sum(
            key in found.submitted_at and found.submitted_at[key] < entry["sent_last"] for key, entry in again.items()
        ),
        "refused": {reason: number for reason, number in facts.items() if reason != "cut_off"},
        "checks": checks,
        "damaged": damaged,
        "restart_ms": sorted(ready_after)[len(ready_after) // 2] * 1000,
        "minutes": minutes,
    }


def _start(where: str, port: int) -> int:
    """Fork a server; returns its process id as soon as it takes connections."""
    import uvicorn

    from annotate.app import build_app
    from annotate.store.database import open_database

    child = os.fork()
    if child == 0:
        try:
            uvicorn.run(build_app(open_database(where), pages=False), host="127.0.0.1", port=port, log_level="error")
        finally:
            os._exit(1)
    patience = time.monotonic() + 60
    while time.monotonic() < patience:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return child
        except ConnectionRefusedError:
            time.sleep(0.005)
    sys.exit("the server did not start")


def _sound(where: str) -> bool:
    connection = sqlite3.connect(where)
    try:
        answers = connection.execute("PRAGMA integrity_check").fetchall()
        return answers == [("ok",)] and not connection.execute("PRAGMA foreign_key_check").fetchall()
    finally:
        connection.close()


# --- the raters, in a process of their own ----------------------------------------------------------------------


def _clients(pipe: Pipe, url: str) -> None:
    asyncio.run(_rate(pipe, [clients.Rater(url, number) for number in range(RATERS)]))


async def _rate(pipe: Pipe, raters: list[clients.Rater]) -> None:
    journal: dict[str, dict[str, Any]] = {}
    facts: Counter[str] = Counter()
    await clients.a_few_at_once(clients.Rater.sign_in, raters)
    for rater in raters:
        await rater.next()
    pipe.send("ready")

    async def rate(rater: clients.Rater) -> None:
        while not pipe.poll():
            try:
                if rater.task is None and await rater.next() is None:
                    facts["nothing left"] += 1
                    await asyncio.sleep(AGAIN)
                    continue
                await submit(rater, rater.submission())
            except clients.Failed as error:
                facts[str(error)] += 1
                rater.task = None
            except ConnectionError:
                await asyncio.sleep(AGAIN)

    async def submit(rater: clients.Rater, submission: dict[str, Any]) -> None:
        """Send one answer until it is acknowledged."""
        tries = 0
        while True:
            sent, tries = time.time(), tries + 1
            try:
                receipt = await rater.submit(submission)
            except ConnectionError as error:
                facts["cut_off"] += not isinstance(error.__cause__, ConnectionRefusedError)
                await asyncio.sleep(AGAIN)
            else:
                journal[submission["key"]] = {"answer": receipt["answer"], "tries": tries, "sent_last": sent}
                return

    await asyncio.gather(*map(rate, raters))
    pipe.send((journal, facts))


def _table(results: list[dict[str, Any]], fsync: float) -> str:
    rows = (
        ("kills", "kill -9 of the server"),
        ("acknowledged", "answers acknowledged"),
        ("stored", "answers stored"),
        ("lost", "**acknowledged and not stored**"),
        ("duplicates", "**stored twice**"),
        ("above", "**items above their overlap**"),
        ("cut_off", "submissions under way when the server was killed"),
        ("sent_again", "answers sent again with the same key"),
        ("found_stored", "of those, stored before: only the acknowledgement had been lost"),
        ("checks", "checks of the database file"),
        ("damaged", "of those, damaged"),
    )
    lines = [f"\n{RATERS} raters back to back; an fsync of 4 kB takes {fsync:.2f} ms.", ""]
    lines += ["| | " + " | ".join(one["database"] for one in results) + " |", "|---|" + "---|" * len(results)]
    lines += [f"| {words} | " + " | ".join(str(one[name]) for one in results) + " |" for name, words in rows]
    lines.append(
        "| median ms until a new server answers | " + " | ".join(f"{r['restart_ms']:.0f}" for r in results) + " |"
    )
    lines.append("| minutes | " + " | ".join(f"{one['minutes']:.1f}" for one in results) + " |")
    lines += [f"\n{one['database']}, refused: {one['refused']}" for one in results if one["refused"]]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
