"""`align doctor`, run as a user runs it: what it finds is what is really so, also where something was made wrong."""

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from align.run import doctor, doctor_folders


def findings(**environment: str) -> tuple[int, dict[str, Any], str]:
    """(exit code, the line of each name, all of the output) of a process with this environment."""
    command = [sys.executable, "-m", "align.cli", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    assert "Traceback" not in done.stderr
    document = json.loads(done.stdout)
    assert document["format"] == 1
    return done.returncode, {line["name"]: line for line in document["lines"]}, done.stdout


def test_what_is_right_and_what_was_made_wrong(tmp_path: Path) -> None:
    """One run: quantising and two processes really work here, and the folder of models is inside a file."""
    (tmp_path / "file").write_text("")
    secret = "hf_nobodyMaySeeThis"
    code, found, said = findings(HF_HOME=str(tmp_path / "file/home"), HF_HUB_OFFLINE="1", HF_TOKEN=secret)
    assert code == 1
    assert found["models"]["state"] == "wrong"
    assert f"{tmp_path / 'file'} is no folder" in found["models"]["found"]
    assert "HF_HOME" in found["models"]["mend"]
    assert (found["hub"]["state"], "a token is there" in found["hub"]["found"]) == ("warn", True)
    assert secret not in said
    assert found["bitsandbytes"]["state"] == "ok"
    assert found["processes"] == {
        "name": "processes",
        "state": "ok",
        "found": "2 processes over gloo added their numbers",
        "mend": None,
    }
    assert found["versions"]["state"] in ("ok", "warn")


def test_folders_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc is a file system in which nothing can be made, whoever asks."""
    monkeypatch.setenv("HF_HOME", "/proc/models")
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc")
    found = {name: (state, said) for name, state, said, _ in doctor_folders.folders()}
    assert found["models"][0] == found["cache"][0] == "wrong"
    assert "can't be written to" in found["models"][1]
    assert found["temporary"][0] != "wrong"


def test_room_is_what_the_disk_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = __import__("shutil").disk_usage(tmp_path).free
    for little, nothing, state in ((free / 2, 0.0, "ok"), (free * 2, 0.0, "warn"), (free * 2, free * 2, "wrong")):
        monkeypatch.setattr(doctor_folders, "_LITTLE", little)
        monkeypatch.setattr(doctor_folders, "_NOTHING", nothing)
        assert doctor_folders._folder("output", tmp_path / "not/there/yet", "")[1] == state


@pytest.mark.parametrize(("status", "state"), [(200, "ok"), (404, "ok"), (503, "warn")])
def test_the_hub_is_really_asked(status: int, state: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    ((_, found, said, _),) = doctor_folders.hub()
    assert found == state
    assert "no token" in said
    server.shutdown()
    server.server_close()
    ((_, found, said, _),) = doctor_folders.hub()  # nobody answers any more
    assert found == "warn"
    assert "can't be reached" in said


def test_versions_below_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Concord's own bounds, as its package says them, and two that this machine can't meet."""
    import importlib.metadata

    needs = importlib.metadata.requires("concord") or []
    assert [line.state for line in doctor._versions()] != ["wrong"]
    more = [
        *needs,
        'trl>=99 ; extra == "align"',
        'nobody-wrote-this>=1 ; extra == "align"',
        'gradio>=99 ; extra == "x"',
    ]
    monkeypatch.setattr("importlib.metadata.requires", lambda _: more)
    wrong = next(line for line in doctor._versions() if line.state == "wrong")
    assert wrong.mend.endswith("pip install -c constraints.txt '.[align]'"), "PyPI's `concord` is not this one"
    assert "trl 1" in wrong.found
    assert "nobody-wrote-this is missing" in wrong.found
    assert "gradio" not in wrong.found


def test_limits_are_those_of_this_process() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        found = {name: (state, said) for name, state, said, _ in doctor_folders.limits()}
        assert found["open files"] == ("warn", "256 at once")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_raises_is_a_line() -> None:
    def broken() -> list[doctor.Line]:
        raise RuntimeError("CUDA error: unknown\nerror")

    (line,) = doctor._guarded(broken)
    assert (line.state, line.found) == ("wrong", "could not be looked at: CUDA error: unknown error")
    assert "1 wrong" in doctor.in_words([line])


def test_a_driver_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nvidia-smi as it ends after an update without a reboot; a real program on the path says so."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    lines = doctor._gpus()
    assert (lines[0].name, lines[0].state) == ("driver", "wrong")
    assert "version mismatch" in lines[0].found
    import torch

    if torch.version.cuda is None:  # a GPU that torch's build can't see
        tool.write_text("#!/bin/sh\n[ -n \"$1\" ] && echo 'NVIDIA L4, 580.65' || echo 'CUDA Version: 13.0'\n")
        lines = doctor._gpus()
        assert lines[0].found == "580.65, up to CUDA 13.0: NVIDIA L4"
        assert (lines[1].name, lines[1].state) == ("torch", "wrong")
        assert "whl/cu130" in (lines[1].mend or "")
