"""Turns of the arena that are being written in this process: both models are asked at once, whoever listens hears it.

A turn goes on when its listener is gone, and each reply is stored as soon as it is whole. It is shown at a pace that
tells little of which model is which (annotate/services/pace.py), under the project's mask.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from anyio.to_thread import run_sync

from annotate.api.render import to_html
from annotate.services import endpoints
from annotate.services.arena import Begun, keep_reply, let_go
from annotate.services.endpoints import Endpoint, Failed
from annotate.services.masks import mask_names, unmasked
from annotate.services.pace import Pace
from annotate.services.refusals import Refused
from annotate.store.database import Database

log = logging.getLogger("annotate.arena")
TICK = 0.1  # seconds between two looks at what is to be shown
QUIET = 10.0  # seconds of silence after which a listener gets a sign of life
MOST, MOST_EACH = 64, 2  # turns that are written at once, by this process, and for one person
Keep = Callable[[int, str], Awaitable[None]]  # store the reply of a side


class Arena:
    """The models that this process knows, and the turns that they are at work on, by chat."""

    def __init__(self, database: Database, models: dict[str, Endpoint]) -> None:
        self.database = database
        self.models = models
        self.writing: dict[int, Writing] = {}
        self._starting: list[int] = []  # whose turns have room, and are on their way into `writing`
        self._tasks: set[asyncio.Task[None]] = set()

    @contextmanager
    def room(self, person: int) -> Iterator[None]:
        """Keeps room for a turn that is to start. Raises Refused "too-many-requests" where there is none."""
        people = [one.person for one in self.writing.values()] + self._starting
        if people.count(person) >= MOST_EACH or len(people) >= MOST:
            said = "Too many chats are being answered just now; try again in a moment."
            raise Refused("too-many-requests", said, retry_after=3.0)
        self._starting.append(person)
        try:
            yield
        finally:
            self._starting.remove(person)

    def start(self, person: int, chat: int, number: int, begun: Begun) -> "Writing":
        """Ask the models for the replies that are missing, from now on, whether somebody listens or not."""
        writing = self.writing[chat] = Writing(person, number, begun)
        task = asyncio.create_task(self._write(chat, writing))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return writing

    async def close(self) -> None:
        """The server stops: nothing goes on, and what is missing can be asked for again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _write(self, chat: int, writing: "Writing") -> None:
        async def keep(side: int, text: str) -> None:
            await run_sync(self._keep, chat, writing.number, side, text)

        try:
            await writing.run(self.models, keep)
        except Exception as error:  # the database is away: what is missing there can be asked for again
            _warn("a turn of a chat could not be stored", error=type(error).__name__)
            writing.broke = True
        finally:
            try:
                await run_sync(self._let_go, chat, writing.number)
            except Exception as error:  # it is free when its time is over
                _warn("a turn of a chat is still held", error=type(error).__name__)
            if self.writing.get(chat) is writing:
                del self.writing[chat]
            writing.close()

    def _keep(self, chat: int, number: int, side: int, text: str) -> None:
        with self.database.write() as session:
            keep_reply(session, chat, number, side, text)

    def _let_go(self, chat: int, number: int) -> None:
        with self.database.write() as session:
            let_go(session, chat, number)


class Writing:
    """One turn: what has been shown of it so far, for everybody who listens, from wherever they begin."""

    def __init__(self, person: int, number: int, begun: Begun) -> None:
        self.person, self.number, self.begun = person, number, begun
        self.pace = Pace(begun.mask)
        self.events: list[dict[str, Any]] = []
        self.stopped = False  # the rater has read enough: what is shown by then is the reply
        self.over = False
        self.broke = False
        self._replies = list(begun.replies)
        self._failed: list[str | None] = [None, None]

    @property
    def whole(self) -> bool:
        return None not in self._replies and not self.broke

    async def run(self, models: dict[str, Endpoint], keep: Keep) -> None:
        """Ask for the missing replies, show and store them. Raises what `keep` raises."""
        missing = [side for side in (0, 1) if self._replies[side] is None]
        for side in {0, 1} - set(missing):  # from an earlier try, and on the screen since then
            self.pace.replies[side].ended = True
            self._end(side)
        asked = {side: asyncio.create_task(self._ask(models, side)) for side in missing}
        try:
            then = time.monotonic()
            while not self.stopped and not all(self.pace.over(side) for side in missing):
                await asyncio.sleep(TICK)
                for side, task in asked.items():
                    if task.done() and not self.pace.replies[side].ended:
                        await self._settle(side, task, keep)
                now = time.monotonic()
                for side, piece in enumerate(self.pace.step(now - then)):
                    if piece:
                        self.events.append({"side": side, "delta": piece})
                    if self.pace.over(side):
                        self._end(side)
                then = now
        finally:
            for task in asked.values():
                task.cancel()
            await asyncio.gather(*asked.values(), return_exceptions=True)
        for side in missing:
            if self.stopped and not self.pace.over(side):
                await self._cut(side, keep)
            self._end(side)

    async def _ask(self, models: dict[str, Endpoint], side: int) -> None:
        def hear(piece: str) -> None:
            self.pace.replies[side].text += piece

        await endpoints.ask(models[self.begun.models[side]], self.begun.conversations[side], hear)

    async def _settle(self, side: int, task: "asyncio.Task[None]", keep: Keep) -> None:
        """A model has said all, or nothing more comes of it."""
        reply = self.pace.replies[side]
        try:
            await task
        except Failed as error:
            _warn("a model did not answer", model=self.begun.models[side], why=error.why, what=error.what)
            self._failed[side] = error.why
            reply.text = ""
        else:
            await keep(side, reply.text)
            self._replies[side] = reply.text
        reply.ended = True

    async def _cut(self, side: int, keep: Keep) -> None:
        """Stopped: what is shown of this side becomes its reply."""
        reply = self.pace.replies[side]
        shown = unmasked(reply.text, self.begun.mask, len(reply.shown))
        if shown.strip():
            await keep(side, shown)
            self._replies[side] = shown
        elif self._replies[side] is None:
            self._failed[side] = "stopped"

    def _end(self, side: int) -> None:
        """Say, once, how this side has ended, with the whole reply as HTML."""
        if any(event["side"] == side and "end" in event for event in self.events):
            return
        reply = self._replies[side]
        html = None if reply is None else to_html(mask_names(reply, self.begun.mask)[0])
        self.events.append({"side": side, "end": self._failed[side] or "whole", "html": html})

    def close(self) -> None:
        """Nothing more comes; a side that has said no end by now was broken off in here."""
        for side in (0, 1):
            if self._replies[side] is None:
                self._failed[side] = self._failed[side] or "lost"
            self._end(side)
        self.over = True

    async def follow(self) -> AsyncIterator[str]:
        """All events as server-sent events; the last one says whether both replies are there, and stored."""
        told, quiet = 0, 0.0
        while True:
            over = self.over  # before the last look at the events
            for event in self.events[told:]:
                told, quiet = told + 1, 0.0
                yield _event(event)
            if over:
                yield _event({"done": True, "whole": self.whole})
                return
            await asyncio.sleep(TICK)
            quiet += TICK
            if quiet >= QUIET:
                quiet = 0.0
                yield ": still at work\n\n"


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


def _warn(message: str, **facts: str) -> None:
    log.warning(message, extra={"facts": facts})
