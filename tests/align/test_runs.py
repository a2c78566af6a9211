"""`align runs`: what is listed and compared, that broken folders stop nothing, and making a run again."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.align.conftest import TRAIN, align, done, refused, write_recipe


@pytest.fixture(scope="module")
def home(tiny: Path, preferences: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two SFT runs that differ in their learning rate, and in `deep/` one that goes on from the first."""
    home = tmp_path_factory.mktemp("runs")
    for name, start, rate in (("one", tiny, 1e-3), ("two", tiny, 1e-4), ("deep/three", home / "one", 1e-3)):
        keys = {**TRAIN, "model_name_or_path": str(start), "dataset_name": str(preferences), "learning_rate": rate}
        recipe = write_recipe(home.parent / f"{home.name}.yaml", **keys)
        done("sft", recipe, "--output_dir", home / name)
    return home


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    facts = json.loads(done("runs", folder, "--json").out)
    assert facts["format"] == 1
    return {Path(run["folder"]).name: run for run in facts["runs"]}


def test_runs_are_listed(home: Path, tiny: Path, preferences: Path) -> None:
    found = rows(home)
    assert set(found) == {"one", "two", "three"}
    one = found["one"]
    assert (one["verb"], one["status"], one["model"], one["data"]) == ("sft", "finished", str(tiny), str(preferences))
    assert one["seconds"] > 0 and one["started_at"].endswith("Z") and one["result"].startswith("loss ")
    assert found["three"]["parents"] == [str(home / "one")] and one["parents"] == []
    lines = done("runs", home).out.splitlines()
    assert lines[0].split()[:5] == ["run", "verb", "status", "started", "took"] and len(lines) == 4
    assert list(rows(home / "one")) == ["one"]  # a run itself
    assert "no such folder" in refused("runs", home / "nowhere")


def test_without_a_folder_it_is_the_one_named_runs(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert done("runs").out == "no runs there\n"
    (tmp_path / "runs").symlink_to(home)
    assert "runs/one" in done("runs").out


BROKEN = {
    "cut": ("manifest.json", '{"verb": "dpo", "sta'),
    "bytes": ("manifest.json", b"\xff\xfe\x00"),
    "list": ("manifest.json", "[]"),
    "odd": ("manifest.json", '{"verb": 3, "status": [], "inputs": [1], "parents": "x", "seconds": "y", "recipe": 4}'),
    "running": ("manifest.json", '{"verb": "dpo", "status": "running", "inputs": {"model": {"name": "m"}}}'),
    "metrics": ("manifest.json", '{"verb": "evaluate", "status": "finished"}'),
    "models": ("manifest.json", '{"verb": "evaluate", "status": "finished", "recipe": {"models": {"a": 1, "b": 2}}}'),
    "deep": ("manifest.json", '{"a":' * 3000),
}


def test_broken_and_half_written_folders_are_listed(tmp_path: Path) -> None:
    for name, (file, content) in BROKEN.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "metrics/metrics.json").write_text('{"models": {"dpo"')
    pair = {"win_rate": 0.61, "interval": [0.55, 0.67]}
    models = {"base": {"judges": {}}, "b": {"judges": {"gold": pair, "x": {}}}, "c": 5, "d": {"judges": {"gold": 3}}}
    (tmp_path / "models/metrics.json").write_text(json.dumps({"verdict_by": "gold", "models": models}))
    (tmp_path / "running/metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    (tmp_path / "no-manifest").mkdir()
    for name in ("recipe.yaml", "metrics.jsonl"):
        (tmp_path / "no-manifest" / name).write_text("")
    (tmp_path / ".hidden").mkdir()
    shutil.copy(tmp_path / "cut/manifest.json", tmp_path / ".hidden/manifest.json")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/manifest.json").write_text('{"project": "a preferences folder"}')
    found = rows(tmp_path)
    assert set(found) == {*BROKEN, "no-manifest"}
    status = {name: run["status"] for name, run in found.items()}
    assert status.pop("running") == "not finished" and status.pop("models") == "finished"
    assert set(status.values()) == {"broken"} and all(found[name]["problem"] for name in status)
    assert (found["running"]["result"], found["running"]["model"]) == ("loss 0.5", "m")
    assert (found["models"]["result"], found["models"]["model"]) == ("b 61% (55%–67%)", "a, b")
    said = done("runs", tmp_path)
    assert said.err == "" and "cut: " in said.out and "not JSON" in said.out
    for name in found:  # two that are anything at all can be compared, or it is said why not
        said = align("runs", tmp_path / name, tmp_path / "models")
        assert said.code in (0, 2) and "Traceback" not in said.err, said.err


def test_two_runs_side_by_side(home: Path, tmp_path: Path) -> None:
    found = json.loads(done("runs", home / "one", home / "two", "--json").out)
    assert found["recipe"] == {"learning_rate": [1e-3, 1e-4]} and found["inputs"] == {}
    assert found["versions"].keys() <= {"commit"}  # somebody may commit while tests run
    assert found["verbs"] == ["sft", "sft"] and all(len(values) == 2 for values in found["metrics"].values())
    assert "loss" in found["metrics"] and found["metrics"]["step"] == [1, 1]
    three = json.loads(done("runs", home / "one", home / "two", home / "deep/three", "--json").out)
    assert list(three["inputs"]) == ["model"] and len(three["inputs"]["model"]) == 3
    assert "adapter_model.safetensors" in three["inputs"]["model"][2]
    said = done("runs", home / "one", home / "two").out
    assert "learning_rate  0.001" in said and "Inputs that differ: none" in said

    other = tmp_path / "other"
    shutil.copytree(home / "one", other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["versions"]["torch"] = "1.0"
    (other / "manifest.json").write_text(json.dumps(manifest))
    assert json.loads(done("runs", home / "one", other, "--json").out)["versions"]["torch"][1] == "1.0"
    assert "not a run" in refused("runs", home, home / "one")


def test_a_run_is_made_again(home: Path, tmp_path: Path) -> None:
    from tests.align.test_cli import weights

    new = tmp_path / "new"
    said = done("runs", "--again", home / "one", "--output_dir", new)
    assert f"align sft {home}/one/recipe.yaml --output_dir {new}" in said.err and "not as it was" not in said.err
    for name, value in weights(home / "one").items():
        assert (weights(new)[name] == value).all(), name
    found = json.loads(done("runs", home / "one", new, "--json").out)
    assert found["recipe"] == found["inputs"] == {} and found["versions"].keys() <= {"commit"}


def test_other_inputs_make_another_run(home: Path, tmp_path: Path) -> None:
    run, new = tmp_path / "run", tmp_path / "new"
    shutil.copytree(home / "one", run)
    again = ("runs", "--again", run, "--output_dir", new)
    whole = (run / "manifest.json").read_text()

    def change(**keys: Any) -> None:
        (run / "manifest.json").write_text(json.dumps({**json.loads(whole), **keys}))

    inputs = json.loads(whole)["inputs"]
    change(inputs={**inputs, "dataset": {**inputs["dataset"], "sha256": {"manifest.json": "0" * 64}}})
    assert "its dataset" in (said := refused(*again)) and "has changed" in said and "align sft" in said
    change(inputs={**inputs, "dataset": {"name": str(tmp_path / "gone.jsonl"), "sha256": {"gone.jsonl": "0"}}})
    assert "gone.jsonl is gone" in refused(*again)
    change(processes=2)
    assert "had 2 processes" in refused(*again)
    change(recipe={"model_name_or_path": "x"})
    assert "is not the recipe that the run was made by" in refused(*again)
    change(recipe=None)
    assert "nothing to run" in refused(*again)
    change(versions={**json.loads(whole)["versions"], "torch": "1.0"}, verb="frobnicate")
    said = align(*again)
    assert said.code == 2 and "not as it was: torch was 1.0" in said.err and "Traceback" not in said.err
    assert "into a folder of its own" in refused("runs", "--again", run)
    assert "is for --again RUN" in refused("runs", run, "--output_dir", new)
    assert not new.exists()


def write_run(folder: Path, metrics: str | None = None, **manifest: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"verb": "dpo", "status": "finished", **manifest}))
    if metrics is not None:
        name = "metrics.json" if manifest.get("verb") == "evaluate" else "metrics.jsonl"
        (folder / name).write_text(metrics)
    return folder


def test_what_manifests_say_does_nothing_to_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b]0;title\x07\u202e\nevil"
    inputs = {"model": {"name": evil}, "dataset": {"name": evil}}
    one = write_run(
        tmp_path / "a\x1b[31m", inputs=inputs, started_at=evil, parents=[{"folder": evil}], recipe={evil: 1}
    )
    two = write_run(tmp_path / "two", recipe={evil: evil})
    for said in (done("runs", tmp_path), done("runs", one, two)):
        assert "evil" in said.out and not {"\x1b", "\x07", "\u202e"} & set(said.out)
        assert not any(line.startswith("evil") for line in said.out.splitlines())
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff"))).mkdir()
    shutil.copy(two / "manifest.json", Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff")))
    done("runs", tmp_path, "--json").out.encode()
    done("runs", tmp_path).out.encode()


def test_secrets_in_recipes_are_not_shown(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", recipe={"hub_token": "hf_SECRET", "max_new_tokens": 7, "api_key_env": "NAME"})
    two = write_run(tmp_path / "two", recipe={"hub_token": None, "max_new_tokens": 8, "api_key_env": "OTHER"})
    for words in ((), ("--json",)):
        said = done("runs", one, two, *words)
        assert "SECRET" not in said.out and "(not shown)" in said.out
        assert "7" in said.out and "OTHER" in said.out


@pytest.mark.parametrize(
    "odd",
    [
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"seconds": -5},
        {"seconds": 10**400},
        {"verb": "evaluate", "metrics": '{"verdict_by": ["x"], "models": {"m": {"judges": {"x": 1}}}}'},
        {"verb": "evaluate", "metrics": '{"models": {"m": {"judges": 3}}}'},
        {
            "verb": "evaluate",
            "metrics": '{"models": {"m": {"judges": {"x": {"win_rate": NaN, "interval": [0, 1e999]}}}}}',
        },
        {"metrics": '{"loss": NaN}\n{"loss": Infinity}\n'},
        {"recipe": {"learning_rate": float("nan")}},
    ],
)
def test_odd_numbers_stop_nothing(tmp_path: Path, odd: dict[str, Any]) -> None:
    runs = [write_run(tmp_path / "one", **odd), write_run(tmp_path / "two")]
    for words in ((tmp_path,), runs):
        assert "nan" not in done("runs", *words).out.replace("learning_rate  nan", "")
        json.loads(done("runs", *words, "--json").out)
