"""SIGTERM: the machine is wanted back, by a cloud's spot market, a Slurm time limit or Kubernetes.

What runs within `stoppable` ends with exit code 0 and the line to go on with. Training ends what it is at first
(`finishing_steps`), and asks all processes at the end of each step (`everybody_asked`); everything else stops where it
is. A second SIGTERM ends the process at once, and `--resume` goes on from the last whole checkpoint.
"""

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from align.run.progress import say

if TYPE_CHECKING:
    from align.run.manifest import Run

_COMMAND = "CONCORD_COMMAND"  # what the user typed, for workers of a launcher
_SAME = 2.0  # seconds: Slurm signals every process of a step, and a launcher hands it on besides


class Stopped(BaseException):
    """SIGTERM came. No error: nothing that catches errors catches it."""


_asked_at: float | None = None
_finishing = 0  # how many `finishing_steps` we are in
_run: "Run | None" = None


@contextmanager
def stoppable() -> Iterator[None]:
    """Exit with code 0 where SIGTERM ends what runs here, and say how to go on."""
    global _asked_at, _run
    if threading.current_thread() is not threading.main_thread():  # no other thread may listen to signals
        yield
        return
    before = signal.signal(signal.SIGTERM, _on_sigterm)
    _asked_at = _run = None
    try:
        yield
    except Stopped:
        say(_last_words())
        sys.exit(0)
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
        _asked_at = _run = None


@contextmanager
def finishing_steps() -> Iterator[None]:
    """SIGTERM raises nothing here: what runs asks `everybody_asked` when it can stop."""
    global _finishing
    _finishing += 1
    try:
        yield
    finally:
        _finishing -= 1


@contextmanager
def anywhere() -> Iterator[None]:
    """Within `finishing_steps`, something that leaves nothing to be finished: SIGTERM raises Stopped right away."""
    global _finishing
    before, _finishing = _finishing, 0
    try:
        if _asked_at is not None:
            raise Stopped
        yield
    finally:
        _finishing = before


def everybody_asked(device: Any = "cpu") -> bool:
    """Whether SIGTERM came to any process of the run; all processes call it, and get the same answer."""
    import torch
    from torch import distributed

    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return _asked_at is not None
    flag = torch.tensor([int(_asked_at is not None)], dtype=torch.int32, device=device)
    distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
    return bool(flag.item())


def opened(run: "Run") -> None:
    """The run that SIGTERM stops from here on: its manifest says so."""
    global _run
    _run = run


def remember_command(environment: Any) -> None:
    """Put the command line into the environment of workers, who see another one."""
    environment[_COMMAND] = shlex.join(sys.argv[1:])


def command_to_resume() -> str:
    """The command line that goes on with this run, ready for a shell."""
    told = os.environ.get(_COMMAND)
    words = [word for word in (shlex.split(told) if told else sys.argv[1:]) if word != "--overwrite"]
    return shlex.join(["align", *words, *([] if "--resume" in words else ["--resume"])])


def _last_words() -> str:
    if _run is None:
        return "stopped by SIGTERM before anything was written; give the command again"
    if _run.manifest["status"] == "finished":
        return f"stopped by SIGTERM after the run was finished: {_run.folder}"
    _run.stop()
    again = "with the same launcher, " if "TORCHELASTIC_RUN_ID" in os.environ and _COMMAND not in os.environ else ""
    return f"stopped by SIGTERM; {again}go on with: {command_to_resume()}"


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    global _asked_at
    now = time.monotonic()
    if _asked_at is not None:
        if now - _asked_at > _SAME:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        return
    _asked_at = now
    if not _finishing:
        raise Stopped
    if os.environ.get("RANK", "0") == "0":  # print may be what the signal came into
        os.write(2, b"SIGTERM: stopping as soon as the run can go on from there; once more, and it ends at once\n")
