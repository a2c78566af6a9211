"""The model card: the report's own sentences and numbers, a header that the hub reads, and no marks from outside."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from align.report.card import write_cards
from align.report.html import write_report
from tests.align import report_example
from tests.align.pages import HOSTILE
from tests.align.test_report import hostile


def card(folder: Path, metrics: dict[str, Any], model: str = "dpo") -> str:
    write_cards(folder, metrics)
    return (folder / f"model-card-{model}.md").read_text(encoding="utf-8")


def header(text: str) -> dict[str, Any]:
    parts = text.split("\n---\n", 1)
    assert parts[0].startswith("---\n")
    return dict(yaml.safe_load(parts[0][4:]))


def test_a_card_for_each_compared_model_in_the_hubs_form(tmp_path: Path) -> None:
    paths = write_cards(tmp_path, report_example.metrics())
    assert sorted(path.name for path in paths) == [
        f"model-card-{name}.md" for name in ("best-of-4", "dpo", "ppo", "sft")
    ]
    text = (tmp_path / "model-card-dpo.md").read_text()
    found = header(text)
    assert found["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct" and found["metrics"] == ["win_rate"]
    assert found["datasets"] == ["runs/preferences"], "what looks like a name of the hub's, and is no folder here"
    (result,) = found["model-index"][0]["results"]
    assert result["metrics"][0]["name"] == "win rate against the base, by people"
    assert result["metrics"][0]["value"] == 0.61
    assert (
        "> **The DPO model is preferred to the base in 61% of prompts, 95% interval 55–67%, 240 prompts, 5 judges; it "
        "is 18% longer; safety set: no change detected; maths set: worse (38%); on none of 3 kinds of prompts "
        "detectably worse.**"
    ) in text
    for part in (
        "Win rates against the base",
        "By kind of prompt",
        "What else changed",
        "Limits",
        "How it was evaluated",
    ):
        assert f"## {part}" in text
    assert "> Got worse: the maths set, repetition and perplexity." in text


def test_the_hub_takes_the_card(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    write_cards(tmp_path, report_example.metrics())
    loaded = ModelCard.load(tmp_path / "model-card-dpo.md")
    assert loaded.data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert loaded.data.eval_results is not None
    assert {result.metric_value for result in loaded.data.eval_results} >= {0.61, 0.63}


def test_a_folder_is_not_named_as_if_the_hub_had_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "preferences").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    metrics = report_example.metrics()
    metrics["models"]["base"]["source"] = "/models/base"
    found = header(card(tmp_path, metrics))
    assert "datasets" not in found and "base_model" not in found


def test_page_and_card_say_what_metrics_json_says(tmp_path: Path) -> None:
    """One number at a time is changed there: both follow."""

    def both(change: Any) -> tuple[str, str]:
        metrics = report_example.metrics()
        change(metrics)
        return write_report(tmp_path, metrics, []).read_text(), card(tmp_path, metrics)

    dpo = lambda metrics: metrics["models"]["dpo"]  # noqa: E731
    people = lambda metrics: dpo(metrics)["judges"]["people"]  # noqa: E731
    cases = {
        "in 97% of prompts": lambda m: people(m).update(win_rate=0.97),
        "57–67%": lambda m: people(m).update(interval=[0.57, 0.67]),
        "241 prompts": lambda m: people(m).update(n=241),
        "77 of the": lambda m: people(m).update(ties=77),
        "it is 91% longer": lambda m: dpo(m).update(length=report_example.mean(404.92, 6)),
        "maths set: worse (11%)": lambda m: m["challenge_sets"]["maths"]["models"]["dpo"]["judges"].update(
            people=report_example.pair(0.11, 90)
        ),
        "temperature 0.123": lambda m: m["sampling"]["settings"].update(temperature=0.123),
        "33.3%": lambda m: dpo(m)["measures"]["refusals"].update(mean=0.333),
        "deadbeef": lambda m: m["provenance"].update(hash="deadbeef"),
    }
    before = both(lambda metrics: None)
    for text, change in cases.items():
        for old, new in zip(before, both(change), strict=True):
            assert text not in old and text in new, text


def test_missing_parts_are_left_out(tmp_path: Path) -> None:
    text = card(tmp_path, {"format": 1, "base": "base", "models": {"base": {}, "dpo": {}}})
    assert "> **No judge has compared the DPO model with the base.**" in text
    assert re.findall(r"^## (.*)", text, re.M) == ["Limits"]
    assert "model-index" not in header(text)
    for part in report_example.metrics():
        if part not in ("models", "base"):
            metrics = report_example.metrics()
            metrics[part] = None
            card(tmp_path, metrics)


@pytest.mark.parametrize("name", ["名" * 300, "x" * 300, "é名" * 100])
def test_a_long_name_makes_a_file_s_name(tmp_path: Path, name: str) -> None:
    metrics = {"format": 1, "base": "base", "models": {"base": {}, name: {}, f"{name}2": {}, f"{name}3": {}}}
    paths = write_cards(tmp_path, metrics)
    assert len(set(paths)) == 3 and all(len(path.name.encode()) < 200 for path in paths)


def test_hostile_names_are_text(tmp_path: Path) -> None:
    metrics, _ = hostile()
    marks = (
        "[click](http://evil.example) ![x](http://evil.example/p) <b>bold</b> `code` | cell | http://evil.example "
        "www.evil.example\n# head\n---\na: !!python/object b"
    )
    metrics["provenance"] = {marks: marks}
    metrics["models"]["../../etc/" + marks] = report_example.model("dpo")
    paths = write_cards(tmp_path, metrics)
    assert len(paths) == len(metrics["models"]) - 1 and all(path.parent == tmp_path for path in paths)
    assert len(list(tmp_path.iterdir())) == len(paths)
    markdown_it = pytest.importorskip("markdown_it", reason="markdown-it-py is missing")
    for path in paths:
        text = path.read_text(encoding="utf-8")
        found = header(text)
        assert set(found) <= {"tags", "metrics", "base_model", "datasets", "model-index"}
        body = text.split("\n---\n", 1)[1]
        page = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
        tags = set(re.findall(r"<(/?[a-zA-Z][a-zA-Z0-9]*)", page))
        ours = [
            "h1",
            "h2",
            "p",
            "strong",
            "blockquote",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "ul",
            "li",
            "code",
        ]
        assert tags <= {*ours, *(f"/{tag}" for tag in ours)}
        assert page.count("<h1>") == 1 and page.count("<code>") == page.count("</code>")
        assert not re.search(r"(?<!\\):(?=//)", re.sub(r"`[^`]*`", "", body)), "an address that would become a link"
        assert re.findall(r"^(?:#+ .*|---)$", body, re.M) == [
            line for line in body.splitlines() if line.startswith("#")
        ]
    assert HOSTILE not in "".join(path.name for path in paths)
