"""Two machines that share a file system: two network namespaces with a cable between them, one process on each."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.align.conftest import TRAIN, done, write_recipe

pytestmark = pytest.mark.slow
ALIGN = str(Path(sys.executable).parent / "align")


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """The names of two network namespaces with the addresses 10.77.0.1 and 10.77.0.2."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the command ip")
    names = [f"concord-{os.getpid()}-{number}" for number in (1, 2)]
    cables = [f"cc{os.getpid()}-{number}" for number in (1, 2)]

    def ip(*words: str) -> bool:
        return subprocess.run(["ip", *words], capture_output=True).returncode == 0

    try:
        for name in names:
            if not ip("netns", "add", name):
                pytest.skip("no network namespace can be made here")
        ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
        for number, (name, cable) in enumerate(zip(names, cables, strict=True), start=1):
            ip("link", "set", cable, "netns", name)
            ip("-n", name, "link", "set", cable, "name", "eth0")
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


def start(machines: list[str], rank: int, recipe: Path, *words: Any) -> subprocess.Popen[str]:
    """`align dpo RECIPE` on one of the machines, as docs/clusters.md says it."""
    options = ["--accelerate_config", "cpu", "--num_processes", "2", "--num_machines", "2", "--machine_rank", str(rank)]
    options += ["--main_process_ip", "10.77.0.1", "--main_process_port", "29510"]
    return subprocess.Popen(
        ["ip", "netns", "exec", machines[rank], ALIGN, "dpo", str(recipe), *map(str, words), *options],
        cwd=recipe.parent,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "eth0"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def recipe_of(home: Path, model: Path, data: Path, **keys: Any) -> Path:
    right = {**TRAIN, "model_name_or_path": str(model), "dataset_name": str(data), "learning_rate": 1e-3}
    return write_recipe(home / "dpo.yaml", **{**right, "output_dir": str(home / "two"), **keys})


def test_two_machines_take_the_steps_of_one(machines: list[str], tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, tiny, pairs_file, per_device_train_batch_size=4, max_steps=4)
    one = ("--output_dir", tmp_path / "one", "--per_device_train_batch_size", 8)
    done("dpo", recipe, *one)
    running = [start(machines, rank, recipe) for rank in (1, 0)]
    said = [process.communicate(timeout=400)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert json.loads((tmp_path / "two" / "manifest.json").read_text())["processes"] == 2
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)


@pytest.mark.parametrize("how", ["its processes are killed", "its cable is cut"])
def test_a_machine_that_is_gone_ends_the_run_with_a_word(
    how: str, machines: list[str], tiny: Path, pairs_file: Path, tmp_path: Path
) -> None:
    """The second machine goes while both train. The first says so, and leaves its run to be resumed."""
    keys = {"save_strategy": "steps", "save_steps": 5, "ddp_timeout": 20}  # seconds that it waits for an answer
    recipe = recipe_of(tmp_path, tiny, pairs_file, max_steps=5000, **keys)
    first, second = start(machines, 0, recipe), start(machines, 1, recipe)
    try:
        while len(list((tmp_path / "two").glob("checkpoint-*/complete.json"))) == 0:
            assert first.poll() is None and second.poll() is None
            time.sleep(0.2)
        if how == "its cable is cut":
            subprocess.run(["ip", "-n", machines[1], "link", "set", "eth0", "down"], check=True)
        else:
            kill_all(machines[1])
        said = first.communicate(timeout=200)[1]
        assert first.returncode not in (0, 2)
        assert "error: " in said.strip().splitlines()[-1], said
        assert "Traceback" not in said
        assert json.loads((tmp_path / "two" / "manifest.json").read_text())["status"] == "running"
    finally:
        for machine in machines:
            kill_all(machine)
        first.wait()
        second.wait()


def kill_all(machine: str) -> None:
    """End all processes of a machine at once."""
    found = subprocess.run(["ip", "netns", "pids", machine], capture_output=True, text=True, check=True)
    for pid in found.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
