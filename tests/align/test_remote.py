"""Data, models and checkpoints in an object store: by fsspec's own local store, and by a real S3 server where there is
one (`pip install moto[server] s3fs`).
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from align.run import remote
from align.run.manifest import start_run
from align.run.remote import MARKER, Mirror, fetched, look_at_mirror, named
from preferences.errors import BadInput
from tests.align.conftest import TRAIN, done, write_recipe


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without copies."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(remote, "_fetched", {})
    return tmp_path / "home"


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a folder in a store."""
    if request.param == "file":
        yield f"file://{tmp_path}/store"
        return
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("FSSPEC_S3_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    import fsspec

    fsspec.config.set_conf_env(fsspec.config.conf)
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL
    )
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert server.poll() is None
            time.sleep(0.05)
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("bucket")
        yield "s3://bucket/store"
    finally:
        server.kill()
        fsspec.config.conf.clear()


def put(store: str, name: str, text: str) -> None:
    import fsspec

    fs, path = fsspec.core.url_to_fs(f"{store}/{name}")
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    fs.pipe_file(path, text.encode())
    fs.invalidate_cache()


def test_what_a_recipe_names_is_fetched_once_and_again_when_it_changes(
    store: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(store, "data.jsonl", "one\n")
    put(store, "model/config.json", "{}")
    put(store, "model/deep/weights.safetensors", "w")
    put(store, "model/checkpoint-5/weights.safetensors", "not wanted")
    recipe = {
        "dataset_name": f"{store}/data.jsonl",
        "models": {"a": f"{store}/model", "b": {"model": "x", "endpoint": "http://127.0.0.1:1/v1"}},
        "mirror": f"{store}/runs",
        "vllm_server_base_url": "http://127.0.0.1:2",
    }
    here = fetched(recipe)
    assert Path(here["dataset_name"]).read_text() == "one\n"
    model = Path(here["models"]["a"])
    assert sorted(str(path.relative_to(model)) for path in model.rglob("*") if path.is_file()) == [
        ".fetched.json",
        "config.json",
        "deep/weights.safetensors",
    ]
    assert (here["models"]["b"], here["mirror"]) == (recipe["models"]["b"], recipe["mirror"])
    assert here["vllm_server_base_url"] == recipe["vllm_server_base_url"]
    assert named(here) == recipe
    assert named({str(model / "deep"): [1, None, f"{model}x"]}) == {f"{store}/model/deep": [1, None, f"{model}x"]}
    assert capsys.readouterr().err.count("fetching") == 2

    fetched(recipe)
    assert "fetching" not in capsys.readouterr().err
    put(store, "data.jsonl", "another\n")
    assert Path(fetched(recipe)["dataset_name"]).read_text() == "another\n"
    assert capsys.readouterr().err.count("fetching") == 1


def test_a_manifest_says_urls_and_not_where_a_machine_keeps_its_copies(store: str, home: Path, tmp_path: Path) -> None:
    put(store, "data.jsonl", "one\n")
    recipe = {"dataset_name": f"{store}/data.jsonl", "output_dir": str(tmp_path / "run")}
    here = fetched(recipe)
    inputs = {"dataset": {"name": here["dataset_name"], "sha256": {"data.jsonl": "0"}}}
    start_run("dpo", here, inputs=inputs, parents=[], seed=1, resume=False)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["recipe"] == recipe
    assert manifest["inputs"]["dataset"]["name"] == recipe["dataset_name"]
    again = start_run("dpo", here, inputs=inputs, parents=[], seed=1, resume=True)  # which compares the two
    assert again.resumed


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("file:///nowhere/at/all", "nothing there"),
        ("nosuch://bucket/data", "Protocol not known"),
        ("file:///rewards.py:score", "code is not fetched"),
        ("s3://key:secret@host/data", r"s3://…@host: a recipe is kept and shown, and no place for a password"),
    ],
)
def test_a_url_that_can_not_be_read_is_one_sentence(name: str, words: str, home: Path) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        fetched({"dataset_name": name})
    assert "secret" not in str(caught.value)


def run_with(folder: Path, *checkpoints: int) -> None:
    (folder / "manifest.json").write_text('{"verb": "dpo", "status": "running"}')
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / "adapter_model.safetensors").write_bytes(b"old")
    for step in checkpoints:
        (folder / f"checkpoint-{step}" / "deep").mkdir(parents=True, exist_ok=True)
        (folder / f"checkpoint-{step}" / "deep" / "weights").write_text(str(step))
        (folder / f"checkpoint-{step}" / MARKER).write_text("{}")


def test_a_run_goes_on_from_its_mirror_on_another_machine(store: str, tmp_path: Path) -> None:
    """All checkpoints that are whole there, for an older one may be the best; pruned ones go there, too; a finished run
    is complete there.
    """
    run, other = tmp_path / "run", tmp_path / "other" / "run"
    run.mkdir()
    mirror = Mirror(f"{store}/runs/dpo")
    assert not mirror.fetch(other)
    run_with(run, 2)
    assert mirror.push(run, run / "checkpoint-2")
    run_with(run, 4)
    assert mirror.push(run, run / "checkpoint-4")
    put(f"{store}/runs/dpo", "checkpoint-6/deep/weights", "torn")  # its marker never came
    keys = {"output_dir": str(other), "mirror": f"{store}/runs/dpo"}
    with pytest.raises(BadInput, match="holds a run already"):
        look_at_mirror(keys, resume=False, overwrite=False)
    assert not look_at_mirror(keys, resume=False, overwrite=True)
    assert look_at_mirror(keys, resume=True, overwrite=False)
    found = sorted(str(path.relative_to(other)) for path in other.rglob("*") if path.is_file())
    whole = [f"checkpoint-{step}/{name}" for step in (2, 4) for name in (MARKER, "deep/weights")]
    assert found == [*whole, "manifest.json", "metrics.jsonl"]
    nowhere = {"output_dir": str(other), "mirror": f"{store}/nowhere"}
    assert look_at_mirror(nowhere, resume=True, overwrite=False)  # it is here
    nowhere["output_dir"] = str(tmp_path / "new")
    assert not look_at_mirror(nowhere, resume=True, overwrite=False)  # nor there: the job begins it

    for path in sorted((run / "checkpoint-2").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (run / "checkpoint-2").rmdir()
    assert mirror.push(run, run / "checkpoint-4")
    assert mirror._checkpoints() == ["checkpoint-4"]
    mirror.finish(run)
    assert Path(fetched({"m": f"{store}/runs/dpo"})["m"], "adapter_model.safetensors").read_bytes() == b"old"
    mirror.begin(run)  # another one in its place, as --overwrite says
    assert sorted(mirror.store.find(mirror.path))[0].endswith("runs/dpo/manifest.json")
    assert len(mirror.store.find(mirror.path)) == 1


def test_a_place_that_holds_something_else_is_never_touched(store: str, tmp_path: Path) -> None:
    """A slip of the hand in `mirror`, such as the bucket itself: everything stays."""
    put(store, "runs/other/weights", "precious")
    put(store, "manifest.json", '{"project": "preferences, not a run"}')
    for resume, overwrite in ((False, False), (False, True), (True, False)):
        with pytest.raises(BadInput, match="not empty, and what it holds is not a run"):
            look_at_mirror({"output_dir": str(tmp_path / "run"), "mirror": store}, resume, overwrite)
    (tmp_path / "run").mkdir()
    run_with(tmp_path / "run", 2)
    mirror = Mirror(store)
    mirror.begin(tmp_path / "run")
    mirror.push(tmp_path / "run", tmp_path / "run" / "checkpoint-2")
    assert mirror.store.cat_file(f"{mirror.path}/runs/other/weights") == b"precious"


@pytest.mark.slow
def test_a_machine_that_is_taken_away_with_its_disk(tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    """Killed while it trains, its folder gone: another machine goes on from the mirror, to the same end."""
    keys = {**TRAIN, "model_name_or_path": str(tiny), "dataset_name": str(pairs_file), "learning_rate": 1e-3}
    keys |= {"max_steps": 40, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}
    mirror, run = tmp_path / "store" / "dpo", tmp_path / "run"
    recipe = write_recipe(tmp_path / "dpo.yaml", **keys, output_dir=str(run), mirror=f"file://{mirror}")
    command = [str(Path(sys.executable).parent / "align"), "dpo", str(recipe), "--resume"]  # it begins, and goes on
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not (mirror / "checkpoint-2" / MARKER).exists() and not list(mirror.glob(f"checkpoint-*/{MARKER}")):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    shutil.rmtree(run)
    done("dpo", recipe, "--resume")
    unbroken = write_recipe(tmp_path / "unbroken.yaml", **keys, output_dir=str(tmp_path / "unbroken"))
    done("dpo", unbroken)
    weights = (tmp_path / "unbroken" / "adapter_model.safetensors").read_bytes()
    assert (run / "adapter_model.safetensors").read_bytes() == weights
    assert (mirror / "adapter_model.safetensors").read_bytes() == weights
    assert json.loads((mirror / "manifest.json").read_text())["status"] == "finished"


def test_a_checkpoint_that_is_copied_again_is_torn_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that went back behind it makes it anew: what is old and what is new of it must not be taken for one."""
    run = tmp_path / "run"
    run.mkdir()
    run_with(run, 2)
    mirror = Mirror(f"file://{tmp_path}/store")
    assert mirror.push(run, run / "checkpoint-2")
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(mirror.store, "put_file", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        mirror.push(run, run / "checkpoint-2")
    assert not (tmp_path / "store" / "checkpoint-2" / MARKER).exists()
    assert mirror.push(run, run / "checkpoint-2")
    assert (tmp_path / "store" / "checkpoint-2" / MARKER).exists()


def test_processes_try_a_mirror_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a file of its own to try it with, which no run takes for one of the mirror's."""
    from fsspec.implementations.local import LocalFileSystem

    put_file, tried = LocalFileSystem.pipe_file, []

    def another_one_comes(store: LocalFileSystem, path: str, value: bytes) -> None:
        put_file(store, path, value)
        tried.append(path)
        if len(tried) == 1:
            Mirror(f"file://{tmp_path}/store")

    monkeypatch.setattr(LocalFileSystem, "pipe_file", another_one_comes)
    mirror = Mirror(f"file://{tmp_path}/store")
    assert len(tried) == 2 and not os.listdir(tmp_path / "store")
    run_with(tmp_path / "store", 2)
    Path(tried[0]).touch()
    assert mirror.fetch(tmp_path / "run")
    assert Path(tried[0]).name not in os.listdir(tmp_path / "run")


def test_a_store_that_fails_does_not_stop_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(remote, "_WAITS", (0.0, 0.0))
    run, store = tmp_path / "run", tmp_path / "store"
    run.mkdir()
    run_with(run, 2)
    mirror = Mirror(f"file://{store}")
    store.rmdir()
    store.write_text("no folder any more")
    assert not mirror.push(run, run / "checkpoint-2")
    assert "checkpoint-2 could not be copied" in capsys.readouterr().err
    with pytest.raises(BadInput, match="the run is finished, and all of it is in"):
        mirror.finish(run)
    with pytest.raises(BadInput, match=r"mirror .*below: cannot be written to"):
        Mirror(f"file://{store}/below")
    assert os.listdir(run)
