"""The demo's known truth and its simulated raters do what they say; its answers are valid items."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from preferences.contract import read_items

DEMO = Path(__file__).parent.parent / "demo"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DEMO))
    spec = importlib.util.spec_from_file_location(name, DEMO / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_truth_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    utility = load("truth", monkeypatch).utility
    twelve = "one two three four five six seven eight nine ten eleven twelve"
    assert utility([], twelve + ".") == 0.0
    assert utility([], twelve) == -2.0  # cut off
    assert utility([], "The capital of Japan is Tokyo.") == -6 / 8  # six words short
    assert utility([], "Sure! " + twelve + ".") == -1 / 8 - 1.0  # a word too many, and a preamble
    assert utility([], "") == -12 / 8 - 2.0


def test_ranks_and_strengths_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    raters = load("raters", monkeypatch)
    assert raters.ranks_of([0.0, -0.3, -2.0]) == [1, 1, 3]
    assert raters.ranks_of([-2.0, 0.0, -1.0]) == [3, 1, 2]
    assert raters.strength_of([0.0, -0.3], [1, 1]) == 0
    assert raters.strength_of([0.0, -0.5], [1, 2]) == -1  # the first, slightly
    assert raters.strength_of([-3.0, 0.0], [2, 1]) == 3  # the second, much
    assert raters.strength_of([0.0, -1.5, -4.0], [1, 2, 3]) == 2


def test_the_shipped_responses_and_their_rankings_can_be_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    raters = load("raters", monkeypatch)
    raters.main(str(DEMO / "responses.jsonl"), str(tmp_path / "ranked.jsonl"))
    items = read_items(tmp_path / "ranked.jsonl")
    assert len(items) == 235
    assert all(len(item.answers) == 3 for item in items)
    careless = sum(answer.rater == raters.CARELESS for item in items for answer in item.answers)
    assert 80 < careless < 155  # half of the items, with three of six raters each
    first = (tmp_path / "ranked.jsonl").read_bytes()
    raters.main(str(DEMO / "responses.jsonl"), str(tmp_path / "ranked.jsonl"))
    assert (tmp_path / "ranked.jsonl").read_bytes() == first


def test_the_demo_says_what_to_do_from_another_folder(tmp_path: Path) -> None:
    import subprocess

    done = subprocess.run(
        [sys.executable, str(DEMO / "run.py")], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode != 0
    assert "run the demo from the top folder" in done.stderr


def test_no_step_of_the_demo_waits_at_a_terminal(tmp_path: Path) -> None:
    """In a terminal `annotate people add` asks for a password; the demo runs through without anybody there."""
    import os
    import subprocess

    code = "import run; run.step('a step', 'python', '-c', 'import sys; sys.exit(sys.stdin.isatty())')"
    ours, theirs = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=DEMO, stdin=theirs, capture_output=True, text=True, timeout=120
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0, done.stderr
