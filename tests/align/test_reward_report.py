"""The report on a reward model: of a real run by the commands, and a page that is harmless."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.evaluate import reward_numbers
from align.report.reward import write_reward_report
from tests.align.conftest import align, done, make_reward_run, pair, refused, write_rows
from tests.align.pages import HOSTILE, assert_text_stays_text, on_a_phone

# --- a real run, by the commands ---


@pytest.fixture(scope="module")
def run(tiny: Path, preferences: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reward_run(tmp_path_factory.mktemp("report") / "run", tiny, preferences, num_train_epochs=8)


def test_inspect_says_what_the_scores_say(run: Path, preferences: Path) -> None:
    """The tiny preferences: in each of six test pairs the shorter response won, without a rater's answer behind it."""
    from align.models.scores import load_scorer
    from preferences.contract import read_rows

    said = done("inspect", run, "--json")
    report = json.loads(said.out)
    assert report == json.loads((run / "reward.json").read_text())
    assert report["format"] == 1 and report["split"] == "test" and report["trained_on"] is False
    rows = read_rows(preferences, "test.jsonl")
    scorer = load_scorer(str(run), "cpu")
    prompts = [[turn.model_dump() for turn in row.prompt] for row in rows]
    first, second = (
        np.array(scorer.scores(prompts, [getattr(row, side)[-1].content for row in rows], 4))
        for side in ("chosen", "rejected")
    )
    d = first - second
    assert report["pairs"] == len(rows) == 6 and report["ties"] == report["pairs_dropped"] == 0
    assert report["accuracy"]["model"]["accuracy"] == pytest.approx((d > 0).mean())
    assert report["accuracy"]["longer_wins"]["accuracy"] == 0
    loss = -(0.9 * np.log(1 / (1 + np.exp(-d))) + 0.1 * np.log(1 / (1 + np.exp(d)))).mean()
    assert report["calibration"]["log_loss"] == pytest.approx(loss, abs=1e-5)
    ranking = report["ranking"]
    assert ranking["roc_auc"]["mean"] == pytest.approx((first[:, None] > second).mean())
    assert ranking["rankings"] == ranking["mrr"]["n"] == 6, "two responses each, the chosen one first"
    assert ranking["mrr"]["mean"] == pytest.approx(np.where(d > 0, 1, 0.5).mean())
    assert ranking["ndcg"]["mean"] == pytest.approx(np.where(d > 0, 1, 1 / np.log2(3)).mean())
    assert ranking["chance"] == {"mrr": 0.75, "ndcg": pytest.approx((1 + 1 / np.log2(3)) / 2)}
    manifest = json.loads((run / "manifest.json").read_text())
    every = (np.concatenate([first, second]) - manifest["scores"]["mean"]) / manifest["scores"]["std"]
    assert report["scores"]["mean"] == pytest.approx(every.mean(), abs=1e-4)
    assert report["human"] is None and report["strength"] is None
    page = (run / "reward.html").read_text()
    assert "of held-out pairs as the raters did" in page and "no human ceiling" in page


def test_training_leaves_a_report_where_there_are_held_out_pairs(
    tiny: Path, preferences: Path, pairs_file: Path, tmp_path: Path
) -> None:
    keys = {"--output_dir": tmp_path / "a", "--max_steps": 1, "--use_peft": "true", "--save_strategy": "no"}
    keys |= {"--model_name_or_path": tiny}
    recipe = tmp_path / "empty.yaml"
    recipe.write_text("{}")
    words = [word for key, value in keys.items() for word in (key, value)]
    said = done("reward", recipe, *words, "--dataset_name", preferences)
    assert "what it is worth on held-out pairs" in said.err
    assert json.loads((tmp_path / "a" / "reward.json").read_text())["split"] == "test"
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["status"] == "finished"
    done("reward", recipe, *words, "--dataset_name", pairs_file, "--output_dir", tmp_path / "b")
    assert not (tmp_path / "b" / "reward.html").exists()  # a file has no held-out part
    assert "name data that it was not trained on" in refused("inspect", tmp_path / "b")


def test_a_report_that_fails_leaves_a_finished_run(
    tiny: Path, preferences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happens to the report, the training went well: exit code 0, and how to try again."""
    from align.models.scores import RewardModel

    def out_of_memory(*_: Any) -> list[float]:
        raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB.")

    run, recipe = tmp_path / "run", tmp_path / "empty.yaml"
    recipe.write_text("{}")
    keys = {"--output_dir": run, "--max_steps": 1, "--use_peft": "true", "--save_strategy": "no"}
    keys |= {"--model_name_or_path": tiny, "--dataset_name": preferences}
    monkeypatch.setattr(RewardModel, "scores_of_ids", out_of_memory)
    said = done("reward", recipe, *[word for key, value in keys.items() for word in (key, value)])
    (last,) = [line for line in said.err.splitlines() if "no report on held-out pairs" in line]
    assert "(RuntimeError: CUDA out of memory. Tried to allocate 2 GiB.)" in last and last.endswith(
        f"align inspect {run}"
    )
    assert json.loads((run / "manifest.json").read_text())["status"] == "finished"
    monkeypatch.undo()
    done("inspect", run)
    assert (run / "reward.html").is_file()


def test_inspect_takes_a_file_with_ties_and_texts_longer_than_the_context(run: Path, tmp_path: Path) -> None:
    def row(chosen: str, rejected: str, preference: float, **more: Any) -> dict[str, Any]:
        return {"prompt": "Say red.", "chosen": chosen, "rejected": rejected, "preference": preference, **more}

    rows = [
        row("red", "cat dog fox sun moon", 1.0, group="a", tags=["x"], strength=2.0),
        row("tea cat dog fox", "sun", 0.2, group="b", tags=["y"], strength=1.0),
        row("tea", "sun", 0.5, group="b", tags=[], strength=0.0),
        row("tea " * 200, "sun", 1.0, group="c", tags=[], strength=None),
        row(HOSTILE.encode("utf-8", "replace").decode() * 2, "cat dog", 0.0, group="d", tags=["<b>"], strength=3.0)
        | {"chosen": "cat", "rejected": "<script>x</script>"},
    ]
    report = json.loads(done("inspect", run, write_rows(tmp_path / "pairs.jsonl", rows), "--json").out)
    assert (report["pairs"], report["ties"], report["pairs_dropped"], report["groups"]) == (3, 1, 1, 3)
    assert report["split"] is None and report["trained_on"] is False
    assert report["calibration"]["n"] == 4 and report["strength"]["n"] == 4
    assert set(report["tags"]) == {"x", "y", "<b>"}
    page = (run / "reward.html").read_text()
    assert "<script>" not in page and "<b></bdi>" not in page
    assert "don&#39;t fit the model&#39;s context" in page


def test_a_prompt_that_stands_in_both_responses_is_no_part_of_them(run: Path, tmp_path: Path) -> None:
    """TRL's implicit prompts: lengths are those of the last turns, and scores those of the explicit form."""
    turns = [
        {"role": "user", "content": "Say red."},
        {"role": "assistant", "content": "red"},
        {"role": "user", "content": "Go"},
    ]
    said = [("sun", "cat dog fox sun moon"), ("tea tea tea", "milk"), ("soup", "star star")]
    ends = [[{"role": "assistant", "content": text} for text in pair] for pair in said]
    whole = [{"chosen": [*turns, chosen], "rejected": [*turns, rejected]} for chosen, rejected in ends]
    apart = [{"prompt": turns, "chosen": [chosen], "rejected": [rejected]} for chosen, rejected in ends]
    reports = []
    for name, rows in (("whole", whole), ("apart", apart)):
        file = write_rows(tmp_path / f"{name}.jsonl", rows)
        reports.append(json.loads(done("inspect", run, file, "--json").out))
    for key in ("accuracy", "length", "lengths", "calibration", "mistakes", "scores"):
        assert reports[0][key] == reports[1][key], key
    assert reports[0]["accuracy"]["longer_wins"]["accuracy"] == pytest.approx(1 / 3)


def test_a_prompt_that_stands_in_two_texts_is_no_part_of_them(run: Path, tmp_path: Path) -> None:
    """HH-RLHF's shape: each prompt is a group of its own, and lengths are those of the replies."""
    said = [("sun", "cat dog fox sun moon"), ("tea tea tea", "milk"), ("soup", "star star"), ("fox", "cat")]
    rows = []
    for number, (chosen, rejected) in enumerate(said):
        prompt = f"\n\nHuman: Say {number // 2}.\n\nAssistant:"
        rows.append({"chosen": f"{prompt} {chosen}", "rejected": f"{prompt} {rejected}"})
    file = write_rows(tmp_path / "texts.jsonl", rows)
    report = json.loads(done("inspect", run, file, "--json").out)
    assert report["groups"] == 2
    assert max(part["high"] for part in report["lengths"]) == pytest.approx((3 + 1 + 20 + 1) / 2)
    for mistake in report["mistakes"]:
        assert mistake["prompt"][0]["content"].startswith("Human: Say ")
        assert "Human" not in mistake["preferred"]["turns"][0]["content"]
    alone = write_rows(
        tmp_path / "alone.jsonl", [{"chosen": chosen, "rejected": rejected} for chosen, rejected in said]
    )
    assert json.loads(done("inspect", run, alone, "--json").out)["groups"] == 4


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"preference": "high"}, "row 1: preference 'high': it is a number from 0 to 1"),
        ({"preference": 1.5}, "row 1: preference 1.5: it is a number from 0 to 1"),
        ({"preference": float("nan")}, "row 1: preference nan: it is a number from 0 to 1"),
        ({"strength": "big"}, "row 1: strength 'big': it is a number"),
        ({"tags": "abc"}, "row 1: tags 'abc': it is a list of texts"),
    ],
)
def test_inspect_refuses_rows_that_are_wrong(facts: dict[str, Any], said: str, run: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "wrong.jsonl", [{**pair("Say x.", "tea", "milk"), **facts}])
    assert f"{data}, {said}" in refused("inspect", run, data)


def test_a_run_whose_scores_are_no_numbers_is_one_sentence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from align.models.scores import RewardModel

    monkeypatch.setattr(RewardModel, "scores_of_ids", lambda self, rows, batch_size: [math.nan] * len(rows))
    assert "are no numbers; train it again" in refused("inspect", run)


def test_pairs_that_it_was_trained_on_are_known_by_what_they_hold(
    reward_run: Path, pairs_file: Path, tmp_path: Path
) -> None:
    """Under another name, and as a copy; other pairs are others."""
    copied = tmp_path / "other-name.jsonl"
    copied.write_bytes(pairs_file.read_bytes())
    for data in (pairs_file, pairs_file.parent / "." / ".." / pairs_file.parent.name / pairs_file.name, copied):
        report = json.loads(done("inspect", reward_run, data, "--json").out)
        assert report["trained_on"] is True
    copied.write_text("\n".join(pairs_file.read_text().splitlines()[:20]))
    assert json.loads(done("inspect", reward_run, copied, "--json").out)["trained_on"] is False


def test_a_file_of_the_folder_that_it_was_trained_on(run: Path, preferences: Path) -> None:
    for split in ("train", "test"):
        report = json.loads(done("inspect", run, preferences / f"{split}.jsonl", "--json").out)
        assert report["trained_on"] is (split == "train")


def test_inspect_refuses_what_is_no_reward_run(tiny: Path, run: Path, tmp_path: Path) -> None:
    assert "not a run folder" in refused("inspect", tiny)
    assert "no such file or folder" in refused("inspect", run, tmp_path / "nothing.jsonl")
    assert align("inspect", "--help").code == 0


# --- the page ---


def report_of(mistakes: list[dict[str, Any]]) -> dict[str, Any]:
    """A whole report on made-up scores, with hostile names and texts wherever text comes from outside."""
    chance = np.random.default_rng(0)
    longer = chance.normal(size=60)
    d = longer + chance.normal(size=60)
    y = np.clip(np.round(1 / (1 + np.exp(-d - chance.normal(size=60))), 1), 0, 1)
    groups = np.array([f"g{number % 12}" for number in range(60)])
    won = y != 0.5
    answers = [[[1, 2] if chance.random() < share else [2, 1] for _ in range(5)] for share in y]
    return {
        "format": 1,
        "run": HOSTILE,
        "model": HOSTILE,
        "data": HOSTILE,
        "split": "test",
        "data_sha256": {HOSTILE: HOSTILE},
        "simulated": True,
        "trained_on": True,
        "weights_sha256": {"adapter_model.safetensors": "ab"},
        "steps": 3,
        "normalisation": {"mean": 0.1, "std": 2.0},
        "pairs": int(won.sum()),
        "ties": int((~won).sum()),
        "pairs_dropped": 9,
        "pairs_left_out": 3,
        "groups": 12,
        "accuracy": reward_numbers.accuracies(d[won], y[won], longer[won], groups[won]),
        "human": reward_numbers.human_ceiling(answers, np.stack([d, 0 * d], 1), groups),
        "tags": reward_numbers.by_tag(
            reward_numbers.rightness(d[won], y[won]),
            [[HOSTILE, f"tag {n % 30}"] for n in range(won.sum())],
            groups[won],
        ),
        "lengths": reward_numbers.by_length(
            reward_numbers.rightness(d[won], y[won]),
            100 * np.abs(np.stack([longer, d], 1))[won],
            d[won] * 0,
            groups[won],
        ),
        "length": reward_numbers.length_facts(d[won], y[won], longer[won], groups[won]),
        "calibration": reward_numbers.calibration(d, y, groups),
        "sureness": reward_numbers.by_sureness(d[won], y[won], groups[won]),
        "strength": reward_numbers.by_strength(d, y, [1.0, 2.0, 3.0] * 20, groups),
        "scores": reward_numbers.distribution(d, 0 * d, y, {"mean": 0.0, "std": 1.0}),
        "mistakes": mistakes,
    }


def hostile_mistake() -> dict[str, Any]:
    turns = [{"role": HOSTILE, "content": HOSTILE}, {"role": "assistant", "content": ""}]
    sides = {side: {"turns": turns, "score": 1.0} for side in ("preferred", "favoured")}
    return {"prompt": turns, **sides, "preference": 0.9, "strength": 2.0, "ranking": HOSTILE, "tags": [HOSTILE]}


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    page = write_reward_report(tmp_path, report_of([hostile_mistake()])).read_text(encoding="utf-8")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["reward.html", "reward.json"]
    assert_text_stays_text(page)
    assert "11 rarer tags" in page and "<strong>Simulated raters.</strong>" in page
    assert "the very pairs that it was trained on" in page


@pytest.mark.browser
def test_in_chromium_nothing_runs_and_nothing_loads(tmp_path: Path, browser: Any) -> None:
    with on_a_phone(browser, write_reward_report(tmp_path, report_of([hostile_mistake()]))):
        pass
