"""The report: the right words for win, loss and no difference; hostile text stays text; nothing runs or loads."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from align.report import plots, words
from align.report.html import write_report
from preferences.stats.winrate import accuracy, mean_interval, win_rate
from tests.align.pages import HOSTILE, assert_text_stays_text, on_a_phone


def votes(wins: int, ties: int, losses: int) -> list[float]:
    return [1.0] * wins + [0.5] * ties + [0.0] * losses


def fields(model: str, *counts: int) -> dict[str, Any]:
    return {"candidate": model, "baseline": "base", **win_rate(votes(*counts), resamples=500)}


def lengths(mean: float, sd: float, seed: int) -> dict[str, Any]:
    return mean_interval(np.random.default_rng(seed).normal(mean, sd, 64), resamples=500)


def full_metrics() -> dict[str, Any]:
    """What an evaluation of a base, DPO and PPO writes, every optional part included."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=192)
    step = list(range(0, 60))
    return {
        "format": 1,
        "title": "Short, direct answers",
        "simulated": True,
        "base": "base",
        "prompts": 64,
        "models": {
            "base": {
                "judges": {},
                "kl": None,
                "length": lengths(212, 60, 1),
                "tokens": lengths(47, 12, 2),
                "finished": 0.41,
                "truth": lengths(-0.9, 0.8, 3),
                "tags": {},
            },
            "dpo": {
                "judges": {"known truth": fields("dpo", 44, 3, 17), "reward model": fields("dpo", 49, 0, 15)},
                "kl": lengths(6.2, 3, 4),
                "length": lengths(128, 50, 5),
                "tokens": lengths(29, 11, 6),
                "finished": 0.83,
                "truth": lengths(0.1, 0.8, 7),
                "tags": {},
            },
            "ppo": {
                "judges": {"known truth": fields("ppo", 34, 4, 26), "reward model": fields("ppo", 46, 0, 18)},
                "kl": lengths(41, 9, 8),
                "length": lengths(190, 55, 9),
                "tokens": lengths(43, 12, 10),
                "finished": 0.5,
                "truth": lengths(-0.7, 0.8, 11),
                "tags": {},
            },
        },
        "judges": {
            "reward model": {"kind": "reward model", "source": "runs/reward"},
            "known truth": {"kind": "known truth", "source": "demo/panel.py"},
        },
        "reward_model": {
            "source": "runs/reward",
            "test": accuracy([1] * 94 + [0] * 26, resamples=500),
            "longer_wins": accuracy([1] * 40 + [0] * 80, resamples=500),
            "truth": {
                "pairs": accuracy([1] * 102 + [0] * 18, resamples=500),
                "raters": accuracy([1] * 111 + [0] * 9, resamples=500),
                "correlation": 0.62,
                "points": [
                    [float(t), float(0.6 * t + 0.7 * e)] for t, e in zip(truth, rng.normal(size=192), strict=True)
                ],
            },
        },
        "recovered": {
            "note": "The best of 4 of the base's responses by the known truth would win 88% of prompts; DPO wins 71%.",
            "share_of_the_possible_gain": 0.55,
        },
        "curves": {
            "reward": {
                "x": step,
                "series": {
                    "loss": [0.7 - 0.3 * (1 - 2 ** (-s / 15)) + 0.02 * float(rng.normal()) for s in step],
                    "accuracy": [None if s % 10 else 0.5 + 0.25 * (1 - 2 ** (-s / 15)) for s in step],
                },
            },
            "dpo": {
                "x": step,
                "series": {"loss": [0.69 - 0.004 * s for s in step], "rewards/margins": [0.02 * s for s in step]},
            },
            "ppo": {
                "x": step,
                "series": {
                    "reward": [0.01 * s for s in step],
                    "objective/kl": [0.1 * s for s in step],
                    "response/tokens": [2.5 - 0.01 * s for s in step],
                },
            },
        },
        "provenance": {
            "model": "SmolLM2-135M-Instruct",
            "data": "sha256 3f1d…",
            "seed": "0",
            "concord": "0.1.0",
            "hostile": HOSTILE,
        },
        "seconds": 143.2,
    }


def samples() -> list[dict[str, Any]]:
    plain = [
        {
            "prompt": [{"role": "user", "content": "How long should I boil an egg if I want the yolk to stay soft?"}],
            "responses": {
                "base": "Boiling an egg is a great way to start your day! There are many factors to consider, such as "
                "the size of the egg, the altitude, and how fresh it is. First of all, you will want to",
                "dpo": "Six minutes in boiling water, then a minute in cold water.",
                "ppo": "Boil it for 6 to 7 minutes.\n\n1. Bring water to a boil.\n2. Add the egg.\n3. Wait 6 minutes.",
            },
            "scores": {
                "known truth": {"base": -1.8, "dpo": 0.9, "ppo": 0.2},
                "reward model": {"base": -0.6, "dpo": 1.4, "ppo": 1.4},
            },
            "tokens": {"base": 48, "dpo": 15, "ppo": 44},
        },
        {
            "prompt": [
                {"role": "system", "content": "You are terse."},
                {"role": "user", "content": "Name a river in Europe."},
                {"role": "assistant", "content": "The Danube."},
                {"role": "user", "content": "And where does it end?"},
            ],
            "responses": {"base": "It ends in the Black Sea.", "dpo": "", "ppo": "In the Black Sea."},
            "scores": {"known truth": {"base": 0.5, "dpo": -3.0, "ppo": 0.5}},
        },
    ]
    hostile = {
        "prompt": [{"role": "user", "content": HOSTILE}],
        "responses": {"base": HOSTILE, "dpo": HOSTILE, "ppo": HOSTILE},
        "scores": {"known truth": {"base": 0.0, "dpo": 0.0, "ppo": 0.0}},
        "tokens": {},
    }
    return [*plain, hostile]


@pytest.fixture
def page(tmp_path: Path) -> str:
    path = write_report(tmp_path, full_metrics(), samples())
    assert path == tmp_path / "report.html"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_hostile_text_stays_text(page):
    assert_text_stays_text(page)


def test_the_top_says_who_won_in_words(page):
    assert (
        "<h1><span>DPO beats the base.</span> <span>For PPO no difference to the base could be shown.</span></h1>"
        in page
    )
    assert "71% of 64 held-out prompts, 3 of them ties, which count half" in page
    assert "judged by the known truth" in page
    assert "The reward model agrees: 77%, 95% interval" in page
    assert "The judges differ. The reward model sees a win: 72%" in page
    assert "The known truth does not confirm it: the model may have learned to please the reward model." in page
    assert "<strong>Simulated raters.</strong>" in page


def test_warnings_on_length_kl_and_cut_off_responses(page):
    assert "DPO&#39;s responses are" in page and "shorter than the base&#39;s" in page
    assert "PPO has moved far from the base: KL" in page
    assert "DPO ends 83% of its responses by itself, the base 41%" in page
    assert "PPO&#39;s responses are" not in page


def test_every_section_is_there(page):
    for head in (
        "Win rates, with their error bars",
        "Did the reward model learn the preference?",
        "How much of the truth was recovered?",
        "What else changed",
        "How the training went",
        "Read for yourself",
        "How this was made",
    ):
        assert head in page
    assert "share of the possible gain" in page and "(empty)" in page


def test_only_the_least_is_needed(tmp_path):
    metrics = {
        "format": 1,
        "base": "base",
        "models": {"base": {"judges": {}}, "mine": {"judges": {"reward model": fields("mine", 7, 0, 0)}}},
    }
    page = write_report(tmp_path, metrics, []).read_text()
    assert "mine beats the base" in page
    assert "Simulated raters" not in page and "Read for yourself" not in page
    # From metrics.json as it comes back from the disk, too.
    write_report(tmp_path, json.loads(json.dumps(full_metrics())), samples())


def test_a_failed_report_leaves_the_old_one(tmp_path):
    (tmp_path / "report.html").write_text("old")
    with pytest.raises(KeyError):
        write_report(tmp_path, {"format": 1}, [])
    assert (tmp_path / "report.html").read_text() == "old"


# --- wording ----------------------------------------------------------------------------------------------------


def test_outcomes_by_interval():
    assert words.outcome({"interval": [0.51, 0.7]}) == "win"
    assert words.outcome({"interval": [0.3, 0.49]}) == "loss"
    assert words.outcome({"interval": [0.5, 0.7]}) == "unclear"


def test_headlines():
    assert words.headline({"dpo": "win", "ppo": "win"}, "the base") == ["DPO and PPO beat the base."]
    assert words.headline({"dpo": "loss"}, "the base") == ["DPO loses to the base."]
    assert words.headline({"a": "unclear"}, "the base") == ["For a no difference to the base could be shown."]
    assert words.headline({}, "the base") == ["No model was compared with the base."]


def test_evidence_and_limit():
    wins = fields("dpo", 45, 0, 19)
    low, high = (f"{bound:.0%}" for bound in wins["interval"])
    assert words.evidence(wins, "the known truth") == (
        f"It wins 70% of 64 held-out prompts (95% interval {low[:-1]}–{high}), judged by the known truth."
    )
    # n = 64 without ties: 0.5 + 2.80 * 0.5 / 8 = 0.675
    assert words.limit(wins).startswith("This sample could only have shown a true win rate of at least 68%")
    assert words.limit(fields("dpo", 3, 0, 0)) == "This sample is too small to show any difference reliably."


def test_rounding_never_hides_the_side():
    assert words.percent(0.504) == "50.4%" and words.percent(0.496) == "49.6%" and words.percent(0.5) == "50%"
    assert words.spread([0.504, 0.71]) == "50.4–71%"


def test_means_have_the_digits_that_their_interval_deserves():
    assert words.measured({"mean": 208.31, "interval": [195.9, 220.6]}) == ("208", "196 to 221")
    assert words.measured({"mean": -0.0735, "interval": [-0.261, 0.0867]}) == ("−0.07", "−0.26 to 0.09")
    assert words.measured({"mean": 64.0, "interval": [64.0, 64.0]}) == ("64", "")
    assert words.measured({"mean": 64.25, "interval": None}) == ("64.2", "")


def test_reward_words():
    def beside(right: int, longer: int) -> str:
        made = [accuracy([1] * count + [0] * (200 - count), resamples=300) for count in (right, longer)]
        return words.reward_words(made[0], made[1], None)

    assert beside(160, 110).endswith("The reward model is better than that rule.")
    assert beside(120, 115).endswith("No clear advantage over that rule could be shown.")
    assert beside(120, 170).endswith("The reward model is worse than that rule.")
    assert "not been shown to be better than a coin" in beside(101, 100)
    test, longer = accuracy([1] * 120 + [0] * 80, resamples=300), accuracy([1] * 115 + [0] * 85, resamples=300)
    assert words.reward_words(test, longer, {"mean": 0.025, "interval": [0.01, 0.04]}).endswith(
        "better than that rule."
    )


# --- pictures ---------------------------------------------------------------------------------------------------


def test_ticks_and_numbers():
    assert plots.ticks(0, 1) == pytest.approx([0, 0.5, 1])
    assert plots.ticks(-0.07, 0.93) == pytest.approx([0, 0.5])
    assert plots.ticks(3, 42) == pytest.approx([10, 20, 30, 40])
    assert [plots.number(x) for x in (0, 0.123456, -2.5, 212.3, 12345.6, 100)] == [
        "0",
        "0.123",
        "−2.5",
        "212",
        "12,346",
        "100",
    ]


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
@example(917677.9999999999, 1e-05)
def test_ticks_lie_inside_and_are_few(low, width):
    high = low + width
    if high > low:
        found = plots.ticks(low, high)
        assert len(found) <= 6
        assert all(low - width * 1e-6 <= tick <= high + width * 1e-6 for tick in found)


def test_pictures_of_little_or_nothing():
    assert plots.curve([], [], "none") is None
    assert plots.curve([1, 2], [None, float("nan")], "none") is None
    assert "circle" in plots.curve([1], [2.0], "one")
    assert "polyline" in plots.curve([1, 2], [3.0, 3.0], "flat")
    assert 'x="71.00%"' in plots.track(0.71, [0.6, 0.8], label="<b>")
    assert "&lt;b&gt;" in plots.track(0.71, None, label="<b>")


# --- a real browser ---------------------------------------------------------------------------------------------


@pytest.mark.browser
def test_in_chromium_nothing_runs_and_nothing_loads(tmp_path, browser):
    path = write_report(tmp_path, full_metrics(), samples())
    with on_a_phone(browser, path) as (tab, said):
        assert tab.title().startswith("Short, direct answers")
        # The policy is a second lock: even an injected script and image do nothing.
        tab.evaluate(
            "document.body.insertAdjacentHTML('beforeend',"
            " `<img src='http://198.51.100.7/y' onerror=\"document.title='owned'\">`)"
        )
        tab.wait_for_timeout(200)
        assert tab.title() != "owned"
        assert any("Content Security Policy" in text or "content security policy" in text.lower() for text in said)


def test_looks_at_held_out_prompts_in_words() -> None:
    from align.report.words import held_out_words

    first = {"step": 0, "scores": -0.5, "kl": 0.0}
    best, last = {"step": 8, "scores": 1.25, "kl": 6.5}, {"step": 12, "scores": 1.0, "kl": 14.0}
    rose = held_out_words({"first": first, "best": best, "last": last, "kl_budget": 10.0})
    assert "rose from −0.5 to 1.25 at a KL of 6.5 nats, within its budget of 10 (update 8)" in rose
    assert rose.endswith("It ended at 1 and a KL of 14.")
    assert "ended at" not in held_out_words({"first": first, "best": last, "last": last, "kl_budget": None})
    never = held_out_words({"first": first, "best": first, "last": last, "kl_budget": None})
    assert never.endswith("so what was kept is the start.")
