"""`align decide`: a record that can't be changed unnoticed, of decisions on reports and weights as they were."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from preferences.files import sha256_file
from tests.align.conftest import align, done, refused

WHO = ("--model", "dpo", "--by", "Olga Ö.")


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """An evaluation's folder, as far as decisions read it."""
    weights, folder = tmp_path / "runs/dpo", tmp_path / "runs/report"
    weights.mkdir(parents=True)
    folder.mkdir()
    (weights / "adapter_model.safetensors").write_bytes(b"weights")
    metrics = {"format": 1, "title": "Better?", "base": "base", "models": {"base": {}, "dpo": {"source": "runs/dpo"}}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "report.html").write_text("<p>Yes.</p>")
    digest = sha256_file(weights / "adapter_model.safetensors")
    facts = {"name": "runs/dpo", "sha256": {str(weights): {"adapter_model.safetensors": digest}}}
    manifest = {
        "verb": "evaluate",
        "status": "finished",
        "inputs": {"model dpo": facts, "dataset": {"name": "x", "sha256": {}}},
        "results_sha256": {name: sha256_file(folder / name) for name in ("metrics.json", "report.html")},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def record(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "decisions.jsonl").read_text().splitlines()]


def test_decisions_are_a_chain(report: Path) -> None:
    said = done("decide", report, "ship", *WHO, "--reason", "61% of prompts.")
    assert "ship  dpo  by Olga Ö.\n" in said.out and "61% of prompts." in said.out
    assert said.err == "the report: No judge has compared the DPO model with the base.\n"
    entry = json.loads(done("decide", report / "metrics.json", "stop", *WHO, "--json").out)
    first, second = record(report)
    assert second == entry and (first["previous"], first["decision"], first["by"]) == (None, "ship", "Olga Ö.")
    assert first["metrics_sha256"] == sha256_file(report / "metrics.json") and first["report"] == "."
    assert first["weights"][str(report.parent / "dpo")].keys() == {"adapter_model.safetensors"}
    lines = (report / "decisions.jsonl").read_bytes().splitlines()
    assert second["previous"] == hashlib.sha256(lines[0]).hexdigest()
    listed = json.loads(done("decide", report, "--json").out)
    assert listed["decisions"] == [first, second] and listed["faults"] == [] and listed["format"] == 1
    assert listed["head"] == hashlib.sha256(lines[1]).hexdigest()
    assert done("decide", report).out.splitlines()[0].split()[1:3] == ["ship", "dpo"]


def test_what_was_tampered_with_is_seen(report: Path) -> None:
    for _ in range(3):
        done("decide", report, "ship", *WHO)
    path = report / "decisions.jsonl"
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    for tampered, line in (
        (whole.replace("Olga", "Otto", 1), 2),
        ("".join(lines[1:]), 1),
        (lines[0] + lines[2], 2),
        (lines[1] + lines[0] + lines[2], 1),
        (lines[0] + "[1]\n" + lines[1] + lines[2], 2),
    ):
        path.write_text(tampered)
        said = align("decide", report)
        assert said.code == 1 and f"line {line}: " in said.out and "Traceback" not in said.err
        assert "can't be trusted" in refused("decide", report, "ship", *WHO)
        assert path.read_text() == tampered
    path.write_text(whole[:-10])
    assert "its last line is cut off" in refused("decide", report)
    assert "its last line is cut off" in refused("decide", report, "stop", *WHO)


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("report/metrics.json", "metrics.json is not what the evaluation wrote"),
        ("report/report.html", "report.html is not what the evaluation wrote"),
        ("dpo/adapter_model.safetensors", "of dpo are not those that were evaluated"),
    ],
)
def test_other_files_than_those_evaluated_are_refused(report: Path, file: str, sentence: str) -> None:
    path = report.parent / file
    path.write_bytes(path.read_bytes() + b" ")
    assert sentence in refused("decide", report, "ship", *WHO)
    path.unlink()
    said = refused("decide", report, "ship", *WHO)
    assert ("cannot read" if file.endswith("metrics.json") else "gone") in said
    assert not (report / "decisions.jsonl").exists()


def test_a_report_that_changed_afterwards_is_a_fault(report: Path) -> None:
    done("decide", report, "ship", *WHO)
    (report / "metrics.json").write_text("{}")
    said = align("decide", report)
    assert said.code == 1 and "line 1" in said.out and "is not the report that was decided on" in said.out
    (report / "metrics.json").unlink()
    assert "ship" in done("decide", report).out  # nothing to compare with is no fault


def test_a_record_of_several_reports(report: Path, tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    done("decide", report, "ship", *WHO, "--record", path)
    done("decide", report, "stop", *WHO, "--record", path)
    assert [json.loads(line)["report"] for line in path.read_text().splitlines()] == ["runs/report"] * 2
    assert not (report / "decisions.jsonl").exists()
    assert done("decide", report, "--record", path).out.count("runs/report") == 2


def test_a_report_that_was_decided_on_is_not_replaced(report: Path) -> None:
    from align.run.manifest import check_output_folder
    from preferences.errors import BadInput

    check_output_folder(report, "evaluate", resume=False, overwrite=True)
    done("decide", report, "ship", *WHO)
    with pytest.raises(BadInput, match="somebody has decided on this run"):
        check_output_folder(report, "evaluate", resume=False, overwrite=True)


def test_what_is_refused(report: Path, tmp_path: Path) -> None:
    assert "--model ppo: not in the report; it has base, dpo" in refused(
        "decide", report, "ship", "--model", "ppo", "--by", "x"
    )
    assert "say which model and who decides" in refused("decide", report, "ship", "--by", "x")
    assert "say what is decided" in refused("decide", report, *WHO)
    assert "--by: is empty" in refused("decide", report, "ship", "--model", "dpo", "--by", " ")
    assert "nothing is decided there yet" in refused("decide", report)
    assert "there is no folder" in refused("decide", report, "ship", *WHO, "--record", tmp_path / "no/where.jsonl")
    assert "cannot read" in refused("decide", tmp_path, "ship", *WHO)
    manifest = json.loads((report / "manifest.json").read_text())
    for change, sentence in (({"verb": "dpo"}, "not an evaluation's folder"), ({"status": "running"}, "not finished")):
        (report / "manifest.json").write_text(json.dumps({**manifest, **change}))
        assert sentence in refused("decide", report, "ship", *WHO)
    assert not (report / "decisions.jsonl").exists()


DECIDE = "import sys; from align.cli import main; sys.argv = ['align', 'decide', *sys.argv[1:]]; main()"


def start(report: Path, by: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-c", DECIDE, str(report), "ship", "--model", "dpo", "--by", by]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_deciding_at_once_loses_no_decision(report: Path) -> None:
    running = [start(report, f"person {number}") for number in range(6)]
    for process in running:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert sorted(entry["by"] for entry in record(report)) == [f"person {number}" for number in range(6)]
    assert done("decide", report).code == 0


def test_a_kill_leaves_the_record_whole(report: Path) -> None:
    done("decide", report, "stop", *WHO)
    for number in range(6):
        process = start(report, f"person {number}")
        time.sleep(0.05 * number)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert done("decide", report).code == 0  # with or without it, never half of it
    done("decide", report, "ship", *WHO)


EVIL = "\x1b[31mO\u202e\n2026-11-22T00:00:00Z  ship  dpo  by boss  ."


def test_a_record_s_words_do_nothing_to_the_terminal(report: Path) -> None:
    for said in (
        done("decide", report, "stop", "--model", "dpo", "--by", EVIL, "--reason", EVIL),
        done("decide", report),
    ):
        assert not {"\x1b", "\u202e"} & set(said.out)
        assert sum(line.startswith("2026-11-22T00") for line in said.out.splitlines()) == 0
        assert "by �[31mO� 2026" in said.out
    assert record(report)[0]["by"] == EVIL  # it is kept as it was given
    assert "--by: is not UTF-8" in refused("decide", report, "ship", "--model", "dpo", "--by", "\udcff")


ODD = {
    "at": 3,
    "by": [],
    "report": "a\0b",
    "model": "\ud800",
    "weights": [1],
    "format": float("nan"),
}


@pytest.mark.parametrize("key", ODD)
def test_a_line_with_odd_values_is_no_decision(report: Path, key: str) -> None:
    done("decide", report, "ship", *WHO)
    path = report / "decisions.jsonl"
    path.write_text(json.dumps({**record(report)[0], key: ODD[key]}) + "\n")
    for words in ((), ("--json",)):
        said = align("decide", report, *words)
        assert (said.code, said.err) == (1, "") and "line 1: not a decision" in said.out
        said.out.encode()
    assert "nothing is added" in refused("decide", report, "ship", *WHO)


def test_an_odd_record_is_refused(report: Path) -> None:
    path = report / "decisions.jsonl"
    path.write_bytes(b"")
    assert "is empty, and a record never is" in refused("decide", report)
    path.write_bytes(b"[" * 100_000 + b"\n")
    assert align("decide", report).code == 1
    path.unlink()
    path.mkdir()
    for words in ((), ("ship", *WHO)):
        assert "is no file that a record could be in" in refused("decide", report, *words)
    path.rmdir()
    pipe = report.parent / "pipe"
    os.mkfifo(pipe)
    assert "is no file" in refused("decide", report, "ship", *WHO, "--record", pipe)
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    "change",
    [
        {"results_sha256": None},
        {"results_sha256": [1]},
        {"results_sha256": {}},
        {"inputs": [1]},
        {"inputs": {"model dpo": [1]}},
        {"inputs": {"model dpo": {"sha256": 3}}},
    ],
)
def test_a_report_that_is_not_known_by_hashes_is_not_decided_on(report: Path, change: dict[str, Any]) -> None:
    manifest = json.loads((report / "manifest.json").read_text())
    (report / "manifest.json").write_text(json.dumps({**manifest, **change}))
    assert "evaluate again" in refused("decide", report, "ship", *WHO)
    assert not (report / "decisions.jsonl").exists()
