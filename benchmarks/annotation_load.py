"""How many answers a second does the annotation server take, and how long does a rater wait for the next item?

    python benchmarks/annotation_load.py [--raters 20 100 300] [--seconds S] [--database sqlite|postgresql|both]
                                         [--no-label-studio] [--folder PATH] [--json]

Raters sign in, each on a connection of their own, and either submit back to back or, 500 of them, once a minute each.
The time of an answer is that from sending it until the receipt and the next item have been read. Beside Concord, with
the same client, the same texts and as many raters: Label Studio's community edition, whose raters send two requests
for that; and a yardstick that does nothing but store one row: FastAPI and SQLite, synchronous=FULL. After each run the
database is compared with what the clients saw acknowledged.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import secrets
import socket
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import annotation_clients as clients
import label_studio_peer as label_studio

WARM_UP = 2.0  # seconds that are not counted
DRAIN = 60.0  # seconds that requests under way at the end may still take
OVERLAP = 3
GOALS = """Goals: 500 raters at one answer a minute with p95 below 300 ms; 100 raters back to back with at least 100
answers/s, p95 below 1500 ms and no error."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raters", type=int, nargs="*", default=[20, 100, 300], help="who submit back to back")
    parser.add_argument("--paced", type=int, default=500, help="who submit once a minute each; 0 for none")
    parser.add_argument("--seconds", type=float, default=30, help="of each run; at least 60 if paced or slow")
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--label-studio", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--yardstick", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--concord", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--items", type=int, default=5000, help="of which each is answered three times")
    parser.add_argument("--folder", help="on the disk to measure [default: temporary]")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    kinds = ["sqlite", "postgresql"] if options.database == "both" else [options.database]
    plans = [(raters, None) for raters in options.raters] + ([(options.paced, 60.0)] if options.paced else [])
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name, clients.databases(kinds, Path(name)) as new_database:
        folder = Path(name)
        fsync = clients.fsync_ms(folder)
        texts = clients.items(options.items)
        for raters, pause in plans:
            seconds = options.seconds if pause is None else max(60.0, options.seconds)
            given = (folder, raters, pause, seconds, texts)
            if options.concord:
                results += [_concord(kind, new_database(kind), *given) for kind in kinds]
            if options.yardstick:
                results.append(_yardstick(*given))
            if options.label_studio and label_studio.python():
                results.append(_label_studio(folder, raters, pause, max(60.0, seconds), texts))
    if options.json:
        print(json.dumps({"fsync_ms": fsync, "cores": os.cpu_count(), "results": results}, indent=1))
    else:
        print(_table(results, fsync))
    if not all(result["lost"] == result["duplicates"] == result["above"] == 0 for result in results if result["ours"]):
        sys.exit("an answer was lost or stored twice")


def _concord(
    kind: str, where: str, folder: Path, raters: int, pause: float | None, seconds: float, texts: list[Any]
) -> dict[str, Any]:
    clients.fill(where, raters=raters, items=texts, overlap=OVERLAP)
    with clients.served(where, log=sys.stderr) as (url, server):
        pids = [server.pid, clients.postmaster(folder)] if kind == "postgresql" else [server.pid]
        result, acknowledged = _load(partial(clients.Rater, resend=True), url, raters, pause, seconds, pids)
    return _judged(f"Concord, {kind}", result, clients.count_answers(where, acknowledged), ours=True)


def _label_studio(folder: Path, raters: int, pause: float | None, seconds: float, texts: list[Any]) -> dict[str, Any]:
    home = folder / f"label-studio-{raters}"
    with label_studio.served(home, raters, texts, OVERLAP) as (url, pid):
        result, acknowledged = _load(label_studio.Rater, url, raters, pause, seconds, [pid])
    return _judged(f"Label Studio {label_studio.VERSION}", result, label_studio.count_answers(home, acknowledged))


def _judged(system: str, result: dict[str, Any], found: clients.Count, ours: bool = False) -> dict[str, Any]:
    checked = {name: getattr(found, name) for name in ("stored", "lost", "duplicates", "above", "unread", "surplus")}
    judged = {"system": system, "ours": ours, **result, **checked}
    print(_row(judged), judged["error_kinds"] or "", file=sys.stderr, flush=True)
    return judged


# --- the clients, in a process of their own ---------------------------------------------------------------------


def _load(
    rater: Callable[[str, int], Any],
    url: str,
    raters: int,
    pause: float | None,
    seconds: float,
    servers: list[int | None],
) -> tuple[dict[str, Any], dict[str, int]]:
    """Let raters answer for some seconds: what was measured, and the journal {key: answer id} of what they saw."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_clients, args=(there, rater, url, raters, pause, seconds))
    process.start()
    there.close()
    here.recv()  # all have a task now
    watched = [*servers, process.pid]
    began, busy, before = time.perf_counter(), clients.busy_seconds(), [clients.cpu_seconds(pid) for pid in watched]
    here.recv()  # time is up
    spent = [clients.cpu_seconds(pid) - start for pid, start in zip(watched, before, strict=True)]
    others = (clients.busy_seconds() - busy - sum(spent)) / (time.perf_counter() - began)
    peak = clients.peak_mb(servers[0] or 0)
    report = here.recv()
    process.join()
    times = sorted(report["times"]) or [float("nan")]
    cuts = statistics.quantiles(times, n=100, method="inclusive") if len(times) > 1 else times * 99
    answers = max(report["sent"], 1)
    result = {
        "raters": raters,
        "pause": pause,
        "seconds": seconds,
        "answers": len(report["times"]),
        "per_second": len(report["times"]) / seconds,
        "p50": cuts[49] * 1000,
        "p95": cuts[94] * 1000,
        "p99": cuts[98] * 1000,
        "longest": times[-1] * 1000,
        "errors": sum(report["errors"].values()),
        "error_kinds": dict(report["errors"]),
        "unfinished": report["unfinished"],
        "ran_out": report["ran_out"],
        "peak_mb": peak,
        "server_cpu_ms": spent[0] / answers * 1000,
        "database_cpu_ms": sum(spent[1:-1]) / answers * 1000,
        "clients_cores": spent[-1] / (WARM_UP + seconds),
        "others_cores": others,
    }
    return result, report["acknowledged"]


def _clients(
    pipe: Pipe, rater: Callable[[str, int], Any], url: str, raters: int, pause: float | None, seconds: float
) -> None:
    asyncio.run(_rate(pipe, [rater(url, number) for number in range(raters)], pause, seconds))


async def _rate(pipe: Pipe, raters: list[Any], pause: float | None, seconds: float) -> None:
    times: list[float] = []
    errors: Counter[str] = Counter()
    acknowledged: dict[str, int] = {}
    state = {"ran_out": 0, "sent": 0}
    await clients.a_few_at_once(lambda rater: rater.sign_in(), raters)
    await clients.a_few_at_once(lambda rater: rater.next(), raters)
    pipe.send("ready")
    begin = time.perf_counter()
    end = begin + WARM_UP + seconds

    async def rate(rater: Any) -> None:
        if pause is not None:
            await asyncio.sleep(random.uniform(0, pause))
        while (now := time.perf_counter()) < end:
            try:
                if rater.task is None and await rater.next() is None:
                    state["ran_out"] += 1
                    return
                submission = rater.submission()
                key = submission.get("key") or secrets.token_hex(12)
                state["sent"] += 1
                before = time.perf_counter()
                receipt = await rater.submit(submission)
                after = time.perf_counter()
                acknowledged[key] = receipt["answer"]
                if begin + WARM_UP <= after <= end:
                    times.append(after - before)
            except clients.Failed as error:
                errors[str(error)] += 1
                rater.task = None
                await asyncio.sleep(0.1)
            except (ConnectionError, TimeoutError) as error:
                errors[type(error).__name__] += 1
                rater.task = None
                await asyncio.sleep(0.1)
            if pause is not None:
                await asyncio.sleep(max(0.0, min(now + pause, end) - time.perf_counter()))

    tasks = [asyncio.create_task(rate(rater)) for rater in raters]
    await asyncio.sleep(end - time.perf_counter())
    pipe.send("over")
    _, unfinished = await asyncio.wait(tasks, timeout=DRAIN)
    for task in unfinished:
        task.cancel()
    for failed in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(failed, Exception):
            raise failed
    pipe.send(
        {
            "times": times,
            "errors": errors,
            "acknowledged": acknowledged,
            "unfinished": len(unfinished),
            **state,
        }
    )


# --- the yardstick ----------------------------------------------------------------------------------------------


class Writer:
    """A client of the yardstick, which knows no raters and no items."""

    def __init__(self, url: str, number: int) -> None:
        self.http = clients.Connection(url, resend=True)
        self.number = number
        self.task: dict[str, Any] | None = {}

    async def sign_in(self) -> None:
        pass

    async def next(self) -> dict[str, Any] | None:
        return self.task

    def submission(self) -> dict[str, Any]:
        return {
            "assignment": self.number,
            "key": secrets.token_hex(12),
            "ranks": [1, 2],
            "strength": -1,
            "seconds": 9.5,
        }

    async def submit(self, submission: dict[str, Any]) -> dict[str, Any]:
        return await self.http.json("POST", "/answers", submission)


def _yardstick(folder: Path, raters: int, pause: float | None, seconds: float, _texts: list[Any]) -> dict[str, Any]:
    file = folder / f"yardstick-{raters}.db"
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # else asyncio leaves Nagle on
    listener.bind(("127.0.0.1", 0))
    listener.listen(1000)
    process = multiprocessing.get_context("fork").Process(target=_serve_yardstick, args=(file, listener))
    process.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    result, acknowledged = _load(Writer, url, raters, pause, seconds, [process.pid])
    process.terminate()
    process.join()
    with sqlite3.connect(file) as connection:
        rows = dict(connection.execute("SELECT key, id FROM answers").fetchall())
    lost = sum(rows.get(key) != answer for key, answer in acknowledged.items())
    found = clients.Count(len(rows), lost, 0, 0, len(rows.keys() - acknowledged.keys()), 0, {})
    return _judged("yardstick: one row", result, found)


def _serve_yardstick(file: Path, listener: socket.socket) -> None:
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    class AnswerIn(BaseModel):
        assignment: int
        key: str
        ranks: list[int]
        strength: int | None
        seconds: float | None

    @contextmanager
    def connection():  # one for each thread, as a pool would have it
        if not hasattr(local, "connection"):
            local.connection = sqlite3.connect(file, isolation_level=None, timeout=30)
            local.connection.execute("PRAGMA journal_mode=WAL")
            local.connection.execute("PRAGMA synchronous=FULL")
        yield local.connection

    local = threading.local()
    app = FastAPI()

    @app.post("/answers")
    def answer(body: AnswerIn) -> dict[str, int | None]:
        with connection() as own:
            values = (body.assignment, body.key, json.dumps(body.ranks), body.strength, body.seconds)
            return {"answer": own.execute("INSERT INTO answers VALUES (NULL, ?, ?, ?, ?, ?)", values).lastrowid}

    with connection() as own:
        own.execute(
            "CREATE TABLE answers (id INTEGER PRIMARY KEY, assignment, key TEXT UNIQUE, ranks, strength, seconds)"
        )
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


# --- the table --------------------------------------------------------------------------------------------------


def _table(results: list[dict[str, Any]], fsync: float) -> str:
    lines = [
        f"\n{os.cpu_count()} cores, which server, database and clients share. An fsync of 4 kB takes {fsync:.2f} ms.",
        "",
        "| raters | system | answers/s | p50 ms | p95 ms | p99 ms | errors | unfinished | peak MB | CPU ms an answer"
        " | cores of clients, others | lost, duplicates, above overlap |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        *map(_row, results),
    ]
    ran_out = sum(one["ran_out"] for one in results)
    lines += ["", f"Raters who ran out of items: {ran_out}."] if ran_out else [""]
    ours = [one for one in results if one["ours"]]
    lines += [GOALS]
    for one in ours:
        if one["pause"] and one["raters"] == 500:
            lines.append(f"{one['system']}, 500 paced: {'reached' if one['p95'] < 300 else 'missed'}")
        elif one["raters"] == 100:
            reached = one["per_second"] >= 100 and one["p95"] < 1500 and not one["errors"]
            lines.append(f"{one['system']}, 100 back to back: {'reached' if reached else 'missed'}")
    lost, twice = sum(one["lost"] for one in ours), sum(one["duplicates"] for one in ours)
    return "\n".join([*lines, "", f"Concord: lost {lost}, duplicates {twice}"])


def _row(one: dict[str, Any]) -> str:
    pace = "back to back" if one["pause"] is None else f"one in {one['pause']:.0f} s"
    cpu = f"{one['server_cpu_ms']:.1f}" + (f" + {one['database_cpu_ms']:.1f}" if one["database_cpu_ms"] else "")
    times = " | ".join(f"{one[name]:.0f}" if one["answers"] else "–" for name in ("p50", "p95", "p99"))
    return (
        f"| {one['raters']} {pace} | {one['system']} | {one['per_second']:.1f} | {times} | {one['errors']}"
        f" | {one['unfinished']} | {one['peak_mb']:.0f}"
        f" | {cpu} | {one['clients_cores']:.2f}, {one['others_cores']:.2f}"
        f" | {one['lost']}, {one['duplicates']}, {one['above']} |"
    )


if __name__ == "__main__":
    main()
