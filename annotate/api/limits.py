"""How much one person, or one address, may ask of one server process."""

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable

from annotate.services.refusals import Refused


class Bucket:
    """A token bucket for each key: `burst` at once, `rate` a second in the long run. Keeps the latest `keys` in memory.

    Each process counts for itself, so that several of them allow several times as much.
    """

    def __init__(self, rate: float, burst: int, keys: int = 10_000) -> None:
        self.rate, self.burst, self.keys = rate, burst, keys
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # key -> (tokens left, when)
        self._lock = threading.Lock()

    def count(self, key: Hashable) -> None:
        """Take one token. Raises Refused "too-many-requests", with the seconds to wait, if there is none."""
        now = time.monotonic()
        with self._lock:
            left, then = self._levels.pop(key, (float(self.burst), now))
            left = min(float(self.burst), left + (now - then) * self.rate)
            self._levels[key] = (left - 1 if left >= 1 else left, now)
            if len(self._levels) > self.keys:
                self._levels.popitem(last=False)
        if left < 1:
            seconds = (1 - left) / self.rate
            raise Refused("too-many-requests", "Too many requests at once; slow down.", retry_after=round(seconds, 3))

    def give_back(self, key: Hashable) -> None:
        """Return a token that was taken for what turned out to be harmless."""
        with self._lock:
            left, then = self._levels.get(key, (float(self.burst), time.monotonic()))
            self._levels[key] = (min(float(self.burst), left + 1), then)


REQUESTS = Bucket(rate=50, burst=200)  # of one person: far more than a page makes
