"""What can go wrong with a disk, in one sentence: a full one, whatever library met it, and a place to write to."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from preferences.errors import BadInput

# safetensors' words, and torch's for a file that could not be written whole
_WORDS = ("No space left on device", "PytorchStreamWriter failed", "unexpected pos")


@contextmanager
def full_disk_is_said(folder: Path) -> Iterator[None]:
    """Raise what a full disk made of a save of weights or checkpoints into `folder` as the OSError that it is."""
    try:
        yield
    except Exception as error:
        if any(words in str(error) for words in _WORDS):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from None
        raise


def check_can_be_written(path: str | Path, option: str) -> None:
    """Raise BadInput unless a file can be written at `path`, which `option` names: before the work, not after it."""
    if not Path(path).resolve().parent.is_dir():
        raise BadInput(f"{option} {path}: there is no folder {Path(path).parent}; make it first")
    if Path(path).is_dir():
        raise BadInput(f"{option}: {path} is a folder; name a file in it")
