"""Folders and files of an object store, by URL: s3://bucket/runs/dpo, gs://…, az://…, whatever fsspec opens.

What a recipe reads by URL is copied beside the other caches, and copied again where it has changed. What a run writes
stays in `output_dir`; its `mirror` gets a copy of each whole checkpoint, and of the finished run.
"""

import fcntl
import json
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

from align.run.progress import say
from preferences.errors import BadInput
from preferences.files import read_json, whole_folder, write_text

T = TypeVar("T")
MARKER = "complete.json"
_COPIES = Path("~/.cache/concord/remote")
_STAMP = ".fetched.json"  # beside a copy: what the store said of each file
_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified")
_WAITS = (1.0, 4.0)  # seconds before a file is tried again: a busy store says so once or twice
_STAYS = ("mirror", "endpoint")  # keys whose URLs are not read from
_URL = re.compile(r"(?!https?:)[a-z][a-z0-9+.-]*://\S+")
_fetched: dict[str, str] = {}  # copies of this process: path -> URL


def fetched(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with the copy on this machine in place of each URL that it names, brought here where it is missing or
    has changed; http(s) is left alone.

    A folder comes without its checkpoints (`checkpoint-*` below it). Raises BadInput for a URL that can't be read, and
    for code: none is fetched.
    """

    def replaced(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: each if key in _STAYS else replaced(each) for key, each in value.items()}
        if isinstance(value, list):
            return [replaced(each) for each in value]
        if not isinstance(value, str) or not _URL.fullmatch(value):
            return value
        if ".py:" in value or value.endswith(".py"):
            raise BadInput(f"{value}: code is not fetched; keep the function in a file on this machine")
        return str(_copy(value))

    found: dict[str, Any] = replaced(recipe)
    return found


def named(value: Any) -> Any:
    """What `fetched` was given: URLs in place of this process's copies, in keys and texts of JSON. For manifests, which
    say where things are, and not where a machine keeps its copies.
    """
    if isinstance(value, dict):
        return {named(key): named(each) for key, each in value.items()}
    if isinstance(value, list):
        return [named(each) for each in value]
    if isinstance(value, str):
        for path, url in _fetched.items():
            if value == path or value.startswith(path + "/"):
                return url + value[len(path) :]
    return value


def _copy(url: str) -> Path:
    store, path = _open(url)
    parts = [part for part in PurePosixPath(path.strip("/")).parts if part not in (".", "..")]
    place = _COPIES.expanduser().joinpath(urlsplit(url).scheme, *parts)
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(place.parent / f".{place.name}.lock", "w") as lock:  # one process fetches for all of this machine
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _asked(url, lambda: store.isfile(path)):
            _fetch(url, store, {"": store.info(path)}, path, place, place.parent / f".{place.name}{_STAMP}")
        else:
            below = {
                _below(name, path): facts for name, facts in _asked(url, lambda: store.find(path, detail=True)).items()
            }
            below = {name: facts for name, facts in below.items() if not name.startswith("checkpoint-")}
            if not below:
                raise BadInput(f"{url}: nothing there; name a file, or a folder with files")
            place.mkdir(exist_ok=True)
            _fetch(url, store, below, path, place, place / _STAMP)
    _fetched[str(place)] = url.rstrip("/")
    return place


def _fetch(url: str, store: Any, files: dict[str, Any], path: str, place: Path, stamp: Path) -> None:
    """Copy what is missing or has changed, and take away what the store has no more. `files`: "" for a single file."""
    before = read_json(stamp) if stamp.is_file() else {}
    now = {name: _version(facts) for name, facts in files.items()}
    for name in sorted(before.keys() - now.keys()):
        (place / name).unlink(missing_ok=True)
    due = [name for name in sorted(now) if before.get(name) != now[name] or not (place / name).is_file()]
    if due:
        size = sum(int(files[name].get("size") or 0) for name in due)
        say(f"fetching {url}: {len(due)} file{'s' * (len(due) > 1)}, {size / 1e6:.1f} MB")
    for name in due:
        target = place / name if name else place
        target.parent.mkdir(parents=True, exist_ok=True)
        partly = target.with_name(f".{target.name}.partly")
        source = f"{path.rstrip('/')}/{name}" if name else path
        _asked(url, partial(store.get_file, source, str(partly)))
        partly.replace(target)
    write_text(stamp, json.dumps(now, sort_keys=True) + "\n")


def look_at_mirror(recipe: dict[str, Any], resume: bool, overwrite: bool) -> bool:
    """Whether a run is to be resumed whose recipe names a `mirror`; as asked, without one.

    Where `output_dir` is not there or empty, as on another machine than the one that began the run, it is fetched from
    its mirror; where there is no run, either, the command begins one: a job that is started again by a machine can't
    know. Raises BadInput where the mirror can't be used, or holds a run that is neither resumed nor replaced.
    """
    url, folder = recipe.get("mirror"), Path(str(recipe.get("output_dir")))
    if url is None or recipe.get("output_dir") is None:
        return resume
    if not isinstance(url, str) or "://" not in url:
        raise BadInput(f"key `mirror`: {url!r} is no URL of a store; write it as s3://bucket/runs/dpo")
    mirror = Mirror(url)
    there = mirror.holds_a_run()
    if not there and mirror.holds_something():  # what begins a run takes away what was there
        raise BadInput(f"mirror {url}: not empty, and what it holds is not a run; give another URL")
    if not resume:
        if not overwrite and there:
            raise BadInput(f"mirror {url}: holds a run already; give --resume, --overwrite, or another URL")
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f".{folder.name}.lock", "w") as lock:  # one of a machine's processes fetches
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists() and any(folder.iterdir()):
            return True
        return mirror.fetch(folder)


class Mirror:
    """A copy of a run's folder in a store. A checkpoint's MARKER is written last, so that a torn one shows."""

    def __init__(self, url: str) -> None:
        """Raises BadInput for a URL that can't be written to; tried now, and not after hours of training."""
        self.url = url.rstrip("/")
        self.store, self.path = _open(self.url)
        probe = f"{self.path}/.writable-{uuid4().hex}"  # other processes try at the same time

        def touch() -> None:
            self.store.makedirs(self.path, exist_ok=True)
            self.store.pipe_file(probe, b"")
            self.store.rm_file(probe)

        try:
            touch()
        except Exception as error:
            raise BadInput(f"mirror {self.url}: cannot be written to ({_first_line(error)})") from None

    def push(self, folder: Path, checkpoint: Path) -> bool:
        """Copy a whole checkpoint and the run's own small files; then forget checkpoints that `folder` has no more.

        False, and a line that says why, where the store fails: training goes on.
        """
        marker = f"{self.path}/{checkpoint.name}/{MARKER}"
        try:
            if self.store.exists(marker):  # of one that this run went back behind; half of each is none
                self.store.rm_file(marker)
            self._put(checkpoint, checkpoint.name, last=MARKER)
            for path in sorted(folder.iterdir()):
                if path.is_file() and path.suffix in (".json", ".jsonl", ".yaml"):
                    self._put_file(path, path.name)
            for name in self._checkpoints():
                if not (folder / name).is_dir():
                    self.store.rm(f"{self.path}/{name}", recursive=True)
        except Exception as error:  # each store has its own
            say(f"mirror {self.url}: {checkpoint.name} could not be copied ({_first_line(error)}); training goes on")
            return False
        return True

    def finish(self, folder: Path) -> None:
        """Copy the finished run but its checkpoints, the manifest last. Raises BadInput where the store fails."""
        try:
            self._put(folder, "", last="manifest.json", leave_out="checkpoint-")
        except Exception as error:
            raise BadInput(
                f"the run is finished, and all of it is in {folder}; but it could not be copied to {self.url}"
                f" ({_first_line(error)}); copy the folder yourself"
            ) from None
        say(f"copied to {self.url}")

    def fetch(self, folder: Path) -> bool:
        """Bring the run into `folder`, which is empty or not there: of its checkpoints those that are whole. The last
        one is gone on from, and an older one may be the best.

        False where the store has no run. Raises BadInput where it can't be read.
        """
        if not self.holds_a_run():
            say(f"no run in {self.url} yet; starting one")
            return False
        whole = [name for name in self._checkpoints() if self.store.exists(f"{self.path}/{name}/{MARKER}")]
        with whole_folder(folder) as partly:
            for name in self.store.find(self.path):
                below = _below(name, self.path)
                if not below.startswith(("checkpoint-", ".")) or below.split("/")[0] in whole:
                    (partly / below).parent.mkdir(parents=True, exist_ok=True)
                    _asked(self.url, partial(self.store.get_file, name, str(partly / below)))
        steps = sorted(int(name.rpartition("-")[2]) for name in whole)
        say(f"fetched from {self.url}: the run, and {f'checkpoints {steps}' if steps else 'no whole checkpoint'}")
        return True

    def holds_a_run(self) -> bool:
        """Whether a run was mirrored there. Raises BadInput where it can't be read."""
        path = f"{self.path}/manifest.json"
        if not _asked(self.url, lambda: self.store.exists(path)):
            return False
        try:
            return "verb" in json.loads(_asked(self.url, lambda: self.store.cat_file(path)))
        except (TypeError, ValueError):
            return False

    def holds_something(self) -> bool:
        """Whether there is any file. Raises BadInput where that can't be told."""
        found = _asked(self.url, lambda: self.store.find(self.path) if self.store.exists(self.path) else [])
        return any(not _below(name, self.path).startswith(".writable-") for name in found)

    def begin(self, folder: Path) -> None:
        """Put a new run's manifest in the place of the run that was there, if any. What is no run is never touched.

        Raises BadInput where the store fails.
        """
        if self.holds_a_run():
            _asked(self.url, lambda: self.store.rm(self.path, recursive=True))
        _asked(self.url, lambda: self._put_file(folder / "manifest.json", "manifest.json"))

    def _checkpoints(self) -> list[str]:
        self.store.invalidate_cache()
        names = {_below(name, self.path).split("/")[0] for name in self.store.find(self.path)}
        return sorted(name for name in names if name.startswith("checkpoint-") and name[11:].isdigit())

    def _put(self, folder: Path, below: str, *, last: str, leave_out: str | None = None) -> None:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        names = {str(path.relative_to(folder)): path for path in files}
        if leave_out:
            names = {name: path for name, path in names.items() if not name.startswith((leave_out, "."))}
        for name in sorted(names, key=lambda name: (name == last, name)):
            self._put_file(names[name], f"{below}/{name}".lstrip("/"))

    def _put_file(self, path: Path, below: str) -> None:
        target = f"{self.path}/{below}"
        for wait in (*_WAITS, None):
            try:
                self.store.makedirs(target.rpartition("/")[0], exist_ok=True)
                self.store.put_file(str(path), target)
                return
            except Exception:
                if wait is None:
                    raise
                time.sleep(wait)


def _open(url: str) -> tuple[Any, str]:
    """The store and the path in it. Raises BadInput."""
    if "@" in urlsplit(url).netloc:
        hidden = f"{urlsplit(url).scheme}://…@{urlsplit(url).netloc.rpartition('@')[2]}"
        raise BadInput(
            f"{hidden}: a recipe is kept and shown, and no place for a password; give it by the store's own environment"
            " variables or files"
        )
    import fsspec

    return _asked(url, lambda: fsspec.core.url_to_fs(url))


def _asked(url: str, ask: Callable[[], T]) -> T:
    """What the store says. Raises BadInput for whatever it raises: each store has its own errors."""
    try:
        return ask()
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"{url}: nothing there; name a file, or a folder with files") from None
    except ImportError as error:
        raise BadInput(f"{url}: a package is missing that opens it ({_first_line(error)})") from None
    except Exception as error:
        raise BadInput(f"{url}: cannot be opened ({_first_line(error)})") from None


def _version(facts: dict[str, Any]) -> str:
    """What tells one content of a file from the next: its size, and what the store says of its version."""
    said = [str(facts[key]) for key in _VERSIONS if facts.get(key) is not None]
    return " ".join([str(facts.get("size")), *said])


def _below(name: str, path: str) -> str:
    """A file's name below the folder; `path` as the store writes it, which may lack the slash at its start."""
    return name.strip("/")[len(path.strip("/")) :].lstrip("/")


def _first_line(error: Exception) -> str:
    return (str(error).strip().split("\n")[0] or type(error).__name__).rstrip(".")
