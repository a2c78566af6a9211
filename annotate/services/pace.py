"""How fast two replies are shown, so that speed tells little of which model is which.

While both are on their way they grow side by side, character by character, as fast as the slower one comes. When one
is over, the other goes on no faster than both went before, but at least at SLOWEST: so it does not tell whether it had
waited for the other. Nothing is shown before both have begun. How long a reply is can be seen, as on any page.
"""

import re
from collections.abc import Sequence

from annotate.services.masks import mask_names

FASTEST = 400.0  # characters a second, of each
SLOWEST = 80.0
_SPACE = re.compile(r"\s+")


class Reply:
    """One side: what has come, and how much of it is shown. `names` are hidden in what is shown."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.text = ""
        self.shown = ""
        self.ended = False  # nothing more comes
        self._words = max((len(re.split(r"[-_\s]+", name.strip())) for name in names), default=0)

    @property
    def begun(self) -> bool:
        return bool(self.text) or self.ended

    def visible(self) -> str:
        """All that may be shown by now: a name that is not whole yet must not be."""
        text = mask_names(self.text, self.names)[0] if self.names else self.text
        if not self.names or self.ended:
            return text
        ends = [found.start() for found in _SPACE.finditer(text, max(0, len(text) - 200))]
        return text[: ends[-self._words] if len(ends) >= self._words else max(0, len(text) - 200)]


class Pace:
    """Two replies; `step` says what of each is to be shown next."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.replies = (Reply(names), Reply(names))
        self._together, self._seconds = 0, 0.0  # characters that both have shown side by side, and in what time
        self._budget = 0.0
        self._alone = False  # one of them is over

    def over(self, side: int) -> bool:
        """Whether all of this side is shown."""
        reply = self.replies[side]
        return reply.ended and len(reply.shown) >= len(reply.visible())

    def step(self, seconds: float) -> tuple[str, str]:
        """What of each reply is to be shown after so many seconds more."""
        if not all(reply.begun for reply in self.replies):
            return "", ""
        going = [side for side in (0, 1) if not self.over(side)]
        both = len(going) == 2
        rate = FASTEST
        if not both and not self._alone:
            self._alone, self._budget = True, 0.0
        if both:
            self._seconds += seconds
        elif self._seconds:
            rate = min(FASTEST, max(SLOWEST, self._together / self._seconds))
        else:
            rate = SLOWEST
        self._budget = min(self._budget, rate / 4) + rate * seconds  # a pause is not made up for
        waiting = {side: self.replies[side].visible()[len(self.replies[side].shown) :] for side in going}
        count = min([int(self._budget), *map(len, waiting.values())])
        self._budget -= count
        self._together += count if both else 0
        pieces = ["", ""]
        for side in going:
            pieces[side] = waiting[side][:count]
            self.replies[side].shown += pieces[side]
        return pieces[0], pieces[1]
