"""Output folders: nobody's files are taken, only the same run is resumed, and a full disk leaves no false model."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.align.conftest import done, pair, refused, write_recipe, write_rows

GOOD = pair("Say red.", "red", "red red red")


def test_an_output_folder_in_use(reward_run: Path, recipe: Callable[..., Path], tmp_path: Path) -> None:
    assert "already holds a run (finished)" in refused("reward", recipe(output_dir=str(reward_run)))
    assert "that run is finished" in refused("reward", recipe(output_dir=str(reward_run)), "--resume")
    assert "a run of `align reward`, not of `align dpo`" in refused(
        "dpo", recipe(output_dir=str(reward_run)), "--resume"
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for words in ([], ["--overwrite"], ["--resume"]):
        assert "what it holds is not a run" in refused("dpo", recipe(output_dir=str(tmp_path / "mine")), *words)
    assert "is a file" in refused("dpo", recipe(output_dir=str(tmp_path / "mine" / "thesis.txt")))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_an_output_folder_that_can_not_be_made(evaluate_recipe: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = refused("evaluate", evaluate_recipe(output_dir=str(tmp_path / "file/run")))
    assert "file is a file, and nothing can be made in it; give another folder" in said
    said = refused("evaluate", evaluate_recipe(output_dir=str(tmp_path / ("x" * 300))))
    assert "cannot be made (File name too long); give another folder" in said
    (tmp_path / "closed").mkdir(mode=0o500)
    if os.access(tmp_path / "closed", os.W_OK):
        pytest.skip("root may write anywhere")
    assert "closed cannot be written to" in refused(
        "evaluate", evaluate_recipe(output_dir=str(tmp_path / "closed/run"))
    )


def test_overwriting_never_takes_the_input_away(recipe: Callable[..., Path], tmp_path: Path) -> None:
    first = recipe(output_dir=str(tmp_path / "first"))
    done("dpo", first)
    said = refused("dpo", recipe(model_name_or_path=str(tmp_path / "first"), output_dir=str(tmp_path / "first")),
                   "--overwrite")  # fmt: skip
    assert "would replace its own input" in said
    assert (tmp_path / "first" / "adapter_model.safetensors").is_file()
    done("dpo", recipe(output_dir=str(tmp_path / "first")), "--overwrite")


def test_only_the_same_run_is_resumed(recipe: Callable[..., Path], pairs_file: Path, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    shutil.copy(pairs_file, data)
    keys = {"output_dir": str(tmp_path / "run"), "dataset_name": str(data)}
    done("dpo", recipe(**keys))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    assert "has another `beta` in its recipe" in refused("dpo", recipe(**keys), "--resume", "--beta", "0.3")
    assert "not finished" in refused("chat", tmp_path / "run")
    write_rows(data, [GOOD] * 8)
    assert "have changed since" in refused("dpo", recipe(**keys), "--resume")


@pytest.fixture()
def small_disk(tmp_path: Path) -> Any:
    """A disk of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a small file system can't be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.skipif(os.name != "posix" or not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("verb", ["dpo", "reward", "sft", "ppo"])
@pytest.mark.parametrize("left", [0, 3_000, 25_000, 60_000])
def test_a_full_disk(
    verb: str, left: int, small_disk: Path, preferences: Path, recipe: Any, ppo_recipe: Any, tiny: Path
) -> None:
    """However much room is left, the run ends with one sentence, and its folder doesn't pass for a model."""
    used = 2**20 - os.sysconf("SC_PAGE_SIZE") - left
    (small_disk / "other").write_bytes(b"x" * used)
    keys: dict[str, Any] = {"output_dir": str(small_disk / "run"), "dataset_name": str(preferences)}
    keys |= {"save_steps": 1} if verb == "ppo" else {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    said = refused(verb, (ppo_recipe if verb == "ppo" else recipe)(**keys))
    assert "no space left on the disk" in said
    if (small_disk / "run").exists() and any((small_disk / "run").iterdir()):
        refused("chat", small_disk / "run")
        if (small_disk / "run" / "manifest.json").exists():
            assert json.loads((small_disk / "run" / "manifest.json").read_text())["status"] == "running"


@pytest.mark.skipif(os.name != "posix" or not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("left", [0, 3_000])
def test_a_full_disk_for_responses(
    left: int, small_disk: Path, tiny: Path, pairs_file: Path, evaluate_recipe: Any, tmp_path: Path
) -> None:
    (small_disk / "other").write_bytes(b"x" * (2**20 - os.sysconf("SC_PAGE_SIZE") - left))
    assert "no space left on the disk" in refused("evaluate", evaluate_recipe(output_dir=str(small_disk / "run")))
    keys = {"model_name_or_path": [str(tiny)], "dataset_name": str(pairs_file), "max_new_tokens": 8}
    recipe = write_recipe(tmp_path / "sample.yaml", **keys)
    said = refused("sample", recipe, "--to-annotate", small_disk / "items.jsonl")
    assert "no space left on the disk" in said
    assert not (small_disk / "items.jsonl").exists()
