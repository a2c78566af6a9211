"""A reply as text while it is being sampled: what can be told of it, which never changes afterwards."""

from collections.abc import Callable, Sequence
from typing import Any


class Stopped(Exception):
    """A stop string has come."""


class Text:
    """Tokens as text, told as soon as it can't change any more: no halves of characters, nothing of a stop string."""

    def __init__(self, tokenizer: Any, stops: Sequence[str], hear: Callable[[str], None]) -> None:
        self.tokenizer, self.stops, self.hear = tokenizer, stops, hear
        self.ids: list[int] = []
        self.told = 0
        self.over = False

    def take(self, token: int) -> None:
        """Raises Stopped after the last piece before a stop string."""
        self.ids.append(token)
        text = self._text()
        # No more of it can begin before here: what was told held back this much.
        begin = max(0, self.told - max(map(len, self.stops), default=0))
        found = [at for stop in self.stops if (at := text.find(stop, begin)) >= 0]
        if found:
            self.over = True
            self._tell(text[: min(found)])
            raise Stopped
        self._tell(text[: len(text) - self._held_back(text)])

    def finish(self) -> None:
        """Tell what was held back in case that it goes on."""
        if not self.over:
            self._tell(self._text())

    def _text(self) -> str:
        return str(self.tokenizer.decode(self.ids, skip_special_tokens=True))

    def _held_back(self, text: str) -> int:
        """How many characters at the end may still change, or begin a stop string."""
        if text.endswith("\ufffd"):  # a character whose bytes are not all here
            return len(text) - len(text.rstrip("\ufffd")) + max(map(len, self.stops), default=0)
        sizes = range(max(map(len, self.stops), default=1) - 1, 0, -1)
        return next((size for size in sizes if any(stop.startswith(text[-size:]) for stop in self.stops)), 0)

    def _tell(self, text: str) -> None:
        if len(text) > self.told:
            piece, self.told = text[self.told :], len(text)
            self.hear(piece)
