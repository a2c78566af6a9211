"""What a verb says while it works: lines on stderr, and the libraries' own chatter turned down."""

import logging
import os
import sys
import time
import warnings

from preferences.terminal import shown


def say(text: str) -> None:
    """One line of progress on stderr, from the main process only; standard output is kept for results."""
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write(f"{shown(text)}\n")  # at once: a signal may stop what runs between two writes
        sys.stderr.flush()


class Progress:
    """How far something slow has come, and when it will be done by its pace: a line every two seconds at most."""

    def __init__(self, what: str, total: int, unit: str, *, done: int = 0) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = self.before = done
        self.cached = 0
        self.started = self.last = time.monotonic()
        if done:
            say(f"{what}: {done} of {total} {unit} are there already")

    def tell(self, more: int, *, cached: int = 0) -> None:
        """So many more are done, of which so many came from the cache and took no time."""
        self.done += more
        self.cached += cached
        now = time.monotonic()
        worked = self.done - self.before - self.cached
        if self.done < self.total and worked and now - self.last >= 2:
            left = (now - self.started) / worked * (self.total - self.done)
            say(f"{self._said()}, about {time_left(left)} left")
            self.last = now

    def end(self) -> None:
        if self.before < self.total:
            say(self._said())

    def _said(self) -> str:
        cached = f" ({self.cached} from the cache)" if self.cached else ""
        return f"{self.what}: {self.done} of {self.total} {self.unit}{cached}"


def time_left(seconds: float) -> str:
    """Seconds as people say them: "40 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def quiet_libraries() -> None:
    """Switch telemetry off (unless the user switched it on) and hide warnings that users can't act on."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # we say what matters; downloads keep their bars
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*MatMul8bitLt.*")
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
