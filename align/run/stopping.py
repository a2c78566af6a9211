"""SIGTERM: the machine is wanted back, by a cloud's spot market, a Slurm time limit or Kubernetes.

What runs within `stoppable` ends with exit code 0 and the line to go on with. Training ends what it is at first
(`finishing_steps`), and asks all processes at the end of each step (`everybody_asked`); everything else stops where it
is. A second SIGTERM ends the process at once, and `--resume` goes on from the last whole checkpoint.
"""

import os
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from align.run.progress import say

if TYPE_CHECKING:
    from align.run.manifest import Run

_COMMAND = "CONCORD_COMMAND"  # what the user typed, for workers of a launcher
_ASKED = "CONCORD_ASKED_TO_STOP"  # a file that is there when SIGTERM came to the launcher
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
    except Stopped as stopped:
        if stopped.args and not _launcher_was_asked():
            _end_now()  # the launcher ends us, because another process has failed; it says what happened
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
        if asked():
            raise Stopped("here")
        yield
    finally:
        _finishing = before


def asked() -> bool:
    """Whether SIGTERM came to this process."""
    return _asked_at is not None


def everybody_asked(device: Any = "cpu") -> bool:
    """Whether SIGTERM came to any process of the run; all processes call it, and get the same answer."""
    import torch
    from torch import distributed

    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return asked()
    flag = torch.tensor([int(asked())], dtype=torch.int32, device=device)
    distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
    return bool(flag.item())


def opened(run: "Run") -> None:
    """The run that SIGTERM stops from here on: its manifest says so."""
    global _run
    _run = run


@contextmanager
def handing_on() -> Iterator[Callable[[], bool]]:
    """For a launcher: hand SIGTERM on to its workers, who stop and say how to go on. A second one kills them. Gives
    whether SIGTERM came; raise Stopped then where a worker ended of it, too early to listen.
    """
    import psutil  # type: ignore[import-untyped]

    asked_at: float | None = None

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        nonlocal asked_at
        workers = psutil.Process().children()
        if asked_at is not None and time.monotonic() - asked_at > _SAME:
            for worker in workers:
                worker.kill()
            _end_now()
        if asked_at is None:
            asked_at = time.monotonic()
            Path(os.environ[_ASKED]).touch()
            for worker in workers:
                worker.terminate()
            if not workers:
                raise Stopped

    os.environ[_COMMAND] = shlex.join(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="concord-") as folder:
        os.environ[_ASKED] = str(Path(folder) / "asked")
        before = signal.signal(signal.SIGTERM, on_sigterm)
        try:
            yield lambda: asked_at is not None
        except Stopped:
            say("stopped by SIGTERM; go on with --resume where a run was begun, else give the command again")
            sys.exit(0)
        finally:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


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
            _end_now()
        return
    _asked_at = now
    if not _finishing:
        raise Stopped("here")
    if os.environ.get("RANK", "0") == "0":  # print may be what the signal came into
        os.write(2, b"SIGTERM: stopping as soon as the run can go on from there; once more, and it ends at once\n")


def _end_now() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _launcher_was_asked() -> bool:
    """Whether SIGTERM came to all, and not from the launcher alone; true where there is no launcher of ours."""
    file = os.environ.get(_ASKED)
    until = time.monotonic() + _SAME
    while file and not os.path.exists(file):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
