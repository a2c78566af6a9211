"""A full disk, whatever library met it: each has its own exception, and people get one sentence."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
