"""The cache: what is put is found, whoever is killed while writing and however many write at once."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from align.run.cache import Cache
from preferences.errors import BadInput

WRITER = """
import sys
from align.run.cache import Cache
cache = Cache(sys.argv[1])
for number in range(int(sys.argv[3])):
    cache.put({"who": sys.argv[2], "number": number}, {"text": f"{sys.argv[2]} {number} é " * 50})
    if number == 5:
        print("started", flush=True)
"""


def writer(folder: Path, who: str, lines: int) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", WRITER, folder, who, str(lines)], stdout=subprocess.PIPE, text=True)


def test_what_is_put_is_found_by_equal_keys_in_any_process(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    assert cache.get({"a": 1, "b": [2]}) is None
    cache.put({"a": 1, "b": [2]}, {"text": "line\nbreak \u2028 é", "ended": None})
    cache.put({"a": 2}, 0.25)
    for reader in (cache, Cache(tmp_path / "cache")):
        assert reader.get({"b": [2], "a": 1}) == {"text": "line\nbreak \u2028 é", "ended": None}
        assert reader.get({"a": 2}) == 0.25
        assert reader.get({"a": 3}) is None
    cache.put({"a": 2}, 0.5)
    assert cache.get({"a": 2}) == Cache(tmp_path / "cache").get({"a": 2}) == 0.5


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.put({"a": 1}, "text")
    (file,) = (tmp_path / "cache").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700


def test_a_torn_line_is_nobodys_and_costs_no_other(tmp_path: Path) -> None:
    """Cut off at every place that a kill may leave."""
    cache = Cache(tmp_path / "cache")
    cache.put({"a": 1}, "é")
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    for cut in range(len(whole)):
        file.write_bytes(whole + whole[:cut])
        again = Cache(tmp_path / "cache")
        assert again.get({"a": 1}) == "é"
        again.put({"a": 1}, "new")
        assert again.get({"a": 1}) == Cache(tmp_path / "cache").get({"a": 1}) == "new"
        file.write_bytes(whole[:cut])
        again = Cache(tmp_path / "cache")
        assert again.get({"a": 1}) is None
        again.put({"a": 1}, "new")
        assert again.get({"a": 1}) == Cache(tmp_path / "cache").get({"a": 1}) == "new"


def test_two_processes_write_at_once_and_one_is_killed(tmp_path: Path) -> None:
    folder, lines = tmp_path / "cache", 400
    one, other, killed = writer(folder, "one", lines), writer(folder, "other", lines), writer(folder, "killed", 10**9)
    assert killed.stdout is not None and killed.stdout.readline() == "started\n"
    time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL and one.wait() == other.wait() == 0
    for process in (one, other, killed):
        assert process.stdout is not None
        process.stdout.close()
    cache = Cache(folder)
    for who in ("one", "other"):
        for number in range(lines):
            assert cache.get({"who": who, "number": number}) == {"text": f"{who} {number} é " * 50}
    assert cache.get({"who": "killed", "number": 0}) == {"text": "killed 0 é " * 50}


def test_a_batch_is_made_as_a_whole_and_what_is_known_stays(tmp_path: Path) -> None:
    """As where somebody was killed between two lines of a batch, and where another evaluation knew one of them."""
    for cache in (Cache(tmp_path / "cache"), Cache(None)):
        keys = [{"n": n} for n in range(3)]
        cache.put(keys[1], "known")
        made: list[int] = []

        def compute(made: list[int] = made) -> list[str]:
            made.append(1)
            return ["new 0", "new 1", "new 2"]

        assert cache.complete(keys, compute) == (["new 0", "known", "new 2"], 1)
        assert cache.complete(keys, compute) == (["new 0", "known", "new 2"], 3)
        assert made == [1]
        assert cache.complete([], compute) == ([], 0)


def test_no_folder_keeps_as_long_as_it_lives_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    cache = Cache(None)
    cache.put({"a": 1}, 1)
    assert cache.get({"a": 1}) == 1 and Cache(None).get({"a": 1}) is None
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"cache_dir .*file: cannot be made .*; name another"):
        Cache(tmp_path / "file")


def test_a_cache_that_is_emptied_under_way_goes_on(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    cache.put({"a": 1}, 1)
    shutil.rmtree(tmp_path / "cache")
    assert cache.get({"a": 1}) is None
    cache.put({"a": 1}, 2)
    assert cache.get({"a": 1}) == 2 and Cache(tmp_path / "cache").get({"a": 1}) == 2
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
