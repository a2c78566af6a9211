"""What has been computed once, kept by the content of what made it: responses of models, verdicts of judges.

A folder of files of lines, `{"key": hash, "value": …}`. A line is added by one write, under a lock, and never changed.
So a process may be killed at any moment, and several may write at once; what is torn is nobody's.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from preferences.errors import BadInput
from preferences.files import dump_json, sha256_json

_HEAD = b'{"key": "'
_HASH = slice(len(_HEAD), len(_HEAD) + 64)


class Cache:
    """Values by key. A key is everything that the value depends on, as JSON; equal keys are one.

    What is known stays: a value depends in its last bits on what was computed beside it, and one thing must have one
    value, or equal texts would not tie. `folder` None: as long as the process lives. The folder and its files can be
    read by their owner only: they hold texts of others.
    """

    def __init__(self, folder: str | Path | None) -> None:
        """Raises BadInput for a folder that can't be made or written to."""
        self.folder = None if folder is None else Path(folder).expanduser()
        self._places: dict[str, dict[str, int]] = {}  # shard -> hash -> where its line begins
        self._memory: dict[str, Any] = {}  # without a folder
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as error:
                raise BadInput(f"cache_dir {self.folder}: cannot be made ({error.strerror}); name another") from None
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise BadInput(f"cache_dir {self.folder}: cannot be written to; name another folder, or null")

    def get(self, key: Mapping[str, Any]) -> Any | None:
        """The value under this key, or None."""
        digest = sha256_json(key)
        if self.folder is None:
            return self._memory.get(digest)
        place = self._shard(digest).get(digest)
        if place is None:
            return None
        with contextlib.suppress(FileNotFoundError), open(self._path(digest), "rb") as stream:
            stream.seek(place)
            return _value(stream.readline(), digest)
        return None  # somebody has emptied the cache

    def put(self, key: Mapping[str, Any], value: Any) -> None:
        """Keep a value, which is anything but None that JSON can say. Ask by `get` first."""
        digest = sha256_json(key)
        if self.folder is None:
            self._memory[digest] = value
            return
        line = _HEAD + digest.encode() + b'", "value": ' + dump_json(value).encode() + b"}\n"
        places = self._shard(digest)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # anew, if somebody has deleted it
        handle = os.open(self._path(digest), os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            end = os.fstat(handle).st_size
            if end and os.pread(handle, 1, end - 1) != b"\n":  # what was being written when somebody was killed
                line, end = b"\n" + line, end + 1
            done = 0
            while done < len(line):
                done += os.write(handle, line[done:])
            places[digest] = end
        finally:
            os.close(handle)

    def complete(
        self, keys: Sequence[Mapping[str, Any]], compute: Callable[[], Sequence[Any]]
    ) -> tuple[list[Any], int]:
        """(the value of each key, how many of them were known). If not all are, `compute` makes all of them anew, so
        that what comes out does not depend on how many were kept when somebody was killed; those that are known stay.
        """
        known = [self.get(key) for key in keys]
        missing = sum(value is None for value in known)
        if missing:
            for number, (key, value) in enumerate(zip(keys, compute(), strict=True)):
                if known[number] is None:
                    self.put(key, value)
                    known[number] = value
        return known, len(keys) - missing

    def look_again(self) -> None:
        """Find what other processes have put there since this one looked first."""
        self._places.clear()

    def _path(self, digest: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{digest[:2]}.jsonl"

    def _shard(self, digest: str) -> dict[str, int]:
        """Where the whole lines of a file begin, found when the first of its keys is asked for."""
        places = self._places.get(digest[:2])
        if places is None:
            places = self._places[digest[:2]] = {}
            with contextlib.suppress(FileNotFoundError), open(self._path(digest), "rb") as stream:
                place = 0
                for line in stream:
                    if line.startswith(_HEAD) and line.endswith(b"}\n"):
                        places[line[_HASH].decode("ascii", "replace")] = place
                    place += len(line)
        return places


def _value(line: bytes, digest: str) -> Any | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found.get("value") if isinstance(found, dict) and found.get("key") == digest else None
