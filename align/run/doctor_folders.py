"""What `align doctor` looks at besides the machine's arithmetic: folders, the hub, limits. Loads no library."""

import contextlib
import os
import resource
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Literal

State = Literal["ok", "warn", "wrong"]
Found = tuple[str, State, str, str | None]  # name, state, what was found, how to mend it

_LITTLE = 20e9  # bytes free: a 7B model is 15 GB
_NOTHING = 1e9
_FILES = 4096  # open at once: data sets and sockets of several processes
_SHARED = 1e9  # bytes of /dev/shm: NCCL and data loaders talk through it
_HUB_SECONDS = 4


def folders() -> list[Found]:
    """Where runs, models, what was computed, and temporary files go: can it be written, and is there room?"""
    home = Path(os.environ.get("HF_HOME") or _cache() / "huggingface").expanduser()
    places = {
        "output": (Path.cwd(), "run align in another folder, or name one by output_dir"),
        "models": (
            Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser(),
            "set HF_HOME to a folder with room",
        ),
        "cache": (_cache() / "concord", "set XDG_CACHE_HOME, or cache_dir in recipes, to a folder with room"),
        "temporary": (Path(tempfile.gettempdir()), "set TMPDIR to a folder with room"),
    }
    return [_folder(name, path, mend) for name, (path, mend) in places.items()]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def _folder(name: str, path: Path, mend: str) -> Found:
    """One folder, which need not be there yet: then the one that it would be made in."""
    there = next((place for place in (path, *path.parents) if os.path.lexists(place)), Path("/"))
    if not there.is_dir():
        return name, "wrong", f"{path}: {there} is no folder", mend
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"\0" * 65536)
            file.flush()
            os.fsync(file.fileno())
        os.listdir(there)
    except OSError as error:
        return name, "wrong", f"{path}: can't be written to ({error.strerror})", mend
    free = shutil.disk_usage(there).free
    said = f"{path}: {free / 1e9:.0f} GB free"
    if free < _NOTHING:
        return name, "wrong", said, mend
    return name, "warn" if free < _LITTLE else "ok", said, mend


def hub() -> list[Found]:
    """Whether models can be fetched, and whether there is a token; the token is not shown."""
    home = Path(os.environ.get("HF_HOME") or _cache() / "huggingface").expanduser()
    kept = Path(os.environ.get("HF_TOKEN_PATH") or home / "token")
    token = bool(os.environ.get("HF_TOKEN"))
    with contextlib.suppress(OSError):
        token = token or bool(kept.read_text(encoding="utf-8", errors="replace").strip())
    has = "a token is there" if token else "no token, which gated models (Llama, Gemma) ask for: `hf auth login`"
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
        said = f"HF_HUB_OFFLINE is set: only models that are in the cache, or in folders; {has}"
        return [("hub", "warn", said, "unset HF_HUB_OFFLINE, to fetch others")]
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    started = time.monotonic()
    try:
        request = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "concord-doctor"})
        urllib.request.urlopen(request, timeout=_HUB_SECONDS).close()
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            return [("hub", "warn", f"{address} answers {error.code}; {has}", "try again later")]
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        mend = "a proxy in HTTPS_PROXY, a mirror in HF_ENDPOINT; or HF_HUB_OFFLINE=1 and models in folders"
        return [("hub", "warn", f"{address} can't be reached ({reason}); {has}", mend)]
    return [("hub", "ok", f"{address} answers in {time.monotonic() - started:.1f} s; {has}", None)]


def limits() -> list[Found]:
    """Open files, shared memory, cores and memory."""
    found: list[Found] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = min(65536, hard) if hard != resource.RLIM_INFINITY else 65536
    many = soft == resource.RLIM_INFINITY or soft >= _FILES
    found.append(("open files", "ok" if many else "warn", f"{soft} at once", f"ulimit -n {least}"))
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).total
        mend = "docker run --shm-size=8g, or a larger tmpfs there; several processes need it"
        found.append(("shared memory", "ok" if size >= _SHARED else "warn", f"{size / 1e9:.1f} GB in {shared}", mend))
    cores, threads = len(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    said = f"{cores} cores, {memory:.0f} GB" + (f", OMP_NUM_THREADS={threads}" if threads else "")
    too_many = threads is not None and threads.isdigit() and int(threads) > cores
    found.append(("CPU", "warn" if too_many else "ok", said, f"OMP_NUM_THREADS={cores}, or unset it"))
    return found
