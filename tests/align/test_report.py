"""The report: every part that there are numbers for and no other; hostile text stays text; nothing runs or loads."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from align.report import examples, plots
from align.report.html import write_report
from preferences.stats.winrate import accuracy, mean_interval, win_rate
from tests.align import report_example
from tests.align.pages import HOSTILE, assert_text_stays_text, on_a_phone

HEADS = {  # a part of metrics.json -> the heading that it brings
    "judges": "Who judged, and do they agree?",
    "many_models": "All models on one scale",
    "challenge_sets": "Challenge sets",
    "fairness": "Does it serve some people less?",
    "judge_agreement": "On the same answers",
    "frontier": "Did it go too far?",
    "harness": "Public tests (lm-evaluation-harness)",
    "reward_model": "Did the reward model learn the preference?",
    "curves": "How the training went",
    "sampling": "Not all models answered under the same settings",
}
ALWAYS = ["Win rates, with their error bars", "What else changed", "Method and limits", "How this was made"]


@pytest.fixture
def page(tmp_path: Path) -> str:
    path = write_report(tmp_path, report_example.metrics(), report_example.samples())
    assert path == tmp_path / "report.html"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def written(folder: Path, metrics: dict[str, Any], samples: list[dict[str, Any]] | None = None) -> str:
    return write_report(folder, metrics, samples or []).read_text(encoding="utf-8")


# --- what is there ----------------------------------------------------------------------------------------------


def test_every_part_is_there(page: str) -> None:
    for head in [*HEADS.values(), *ALWAYS, "What got worse, what got better", "Read for yourself"]:
        assert head in page, head
    assert "Simulated raters" not in page
    assert '<h1 class="several"><span>The DPO model is preferred to the base in 61% of prompts' in page
    assert "at most 0.60 <small>(0.54 to 0.66)</small>" in page, "the KL of best of n is a bound"
    assert "Repetition on the safety set: 9.0%, the base 5.0% (+4.0 points, 2.8 to 5.2)" in page
    assert "no change detected (p 0.50); one to 32% or 68% would most likely have shown" in page
    assert "1 of 2 gaps is larger than chance explains." in page and "−17 points" in page
    assert "The gap is no larger than chance explains." in page


@pytest.mark.parametrize("gone", ["missing", "null", "empty"])
def test_a_part_that_is_not_there_is_left_out(gone: str, tmp_path: Path) -> None:
    for part, head in HEADS.items():
        metrics = report_example.metrics()
        if part == "judges":  # then the judges of the pairs are still named
            continue
        if gone == "missing":
            del metrics[part]
        else:
            metrics[part] = None if gone == "null" else type(metrics[part])()
        found = written(tmp_path, metrics)
        assert head not in found, part
        for other, name in HEADS.items():
            assert other == part or name in found, f"without {part}, {other} is gone"


def test_parts_of_models_may_be_missing(tmp_path: Path) -> None:
    for part in ("tags", "measures", "length", "tokens", "finished", "kl", "scores", "judges"):
        for nothing in (None,) if part in ("finished",) else (None, {}):
            metrics = report_example.metrics()
            for facts in metrics["models"].values():
                facts[part] = nothing
            written(tmp_path, metrics, report_example.samples(2))
            for facts in metrics["models"].values():
                del facts[part]
            written(tmp_path, metrics)


def test_only_the_least_is_needed(tmp_path: Path) -> None:
    fields = {"candidate": "mine", "baseline": "base", **win_rate([1.0] * 30, resamples=500)}
    metrics = {
        "format": 1,
        "base": "base",
        "models": {"base": {"judges": {}}, "mine": {"judges": {"reward model": fields}}},
    }
    found = written(tmp_path, metrics)
    assert "“mine” is preferred to the base in 100% of prompts" in found and "30 prompts" in found
    assert "Simulated raters" not in found and "Read for yourself" not in found
    alone = written(tmp_path, {"format": 1, "base": "base", "models": {"base": {}}})
    assert "No model was compared with the base." in alone
    # From metrics.json as it comes back from the disk, too.
    written(tmp_path, json.loads(json.dumps(report_example.metrics())), report_example.samples())


def test_an_evaluation_from_before_judges_had_names_still_renders(tmp_path: Path) -> None:
    votes = win_rate([1.0] * 44 + [0.5] * 3 + [0.0] * 17, resamples=500)
    lengths = mean_interval([200.0, 210.0, 240.0], resamples=500)
    model = {"kl": lengths, "length": lengths, "tokens": lengths, "finished": 0.4, "truth": lengths, "tags": {}}
    truth = {"pairs": accuracy([1] * 9 + [0], resamples=99), "raters": accuracy([1, 0], resamples=99)}
    old = {
        "format": 1,
        "title": "Short, direct answers",
        "simulated": True,
        "base": "base",
        "prompts": 64,
        "models": {
            "base": {**model, "judges": {}, "kl": None},
            "dpo": {**model, "judges": {"reward": votes, "truth": votes}},
        },
        "judges": {
            "reward": {"kind": "reward model", "source": "runs/reward"},
            "truth": {"kind": "known truth", "source": "demo/truth.py:utility"},
        },
        "reward_model": {
            "source": "runs/reward",
            "test": accuracy([1] * 94 + [0] * 26, resamples=99),
            "longer_wins": accuracy([1] * 40 + [0] * 80, resamples=99),
            "truth": {**truth, "correlation": 0.62, "points": [[0.1, 0.2], [0.3, 0.1]]},
        },
        "recovered": {"note": "DPO wins 71%.", "share_of_the_possible_gain": 0.55},
        "curves": {"dpo": {"x": [1, 2], "series": {"loss": [0.7, None]}}},
        "held_out_looks": {},
        "provenance": {"seed": "0"},
        "seconds": 143.2,
    }
    sample = {
        "prompt": [{"role": "user", "content": "How long for an egg?"}],
        "responses": {"base": "Long.", "dpo": "Six minutes."},
        "scores": {"truth": {"base": -1.8, "dpo": 0.9}, "reward": {"base": 1.0, "dpo": 0.5}},
        "tokens": {"base": 2, "dpo": 3},
    }
    found = written(tmp_path, old, [sample])
    assert "The DPO model is preferred to the base in 71% of prompts" in found
    assert "The known truth decides; the reward model (71%) agrees." in found
    assert "share of the possible gain" in found and "<strong>Simulated raters.</strong>" in found
    assert 'data-o="w0-0 l0-1 r0-1"' in found


def test_a_failed_report_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    with pytest.raises(KeyError):
        write_report(tmp_path, {"format": 1}, [])
    assert (tmp_path / "report.html").read_text() == "old"


# --- hostile text -----------------------------------------------------------------------------------------------

FIELDS = """  # of metrics.json and samples.jsonl: what is not among them is a name from outside
format title simulated base prompts seconds verdict_by sampling settings differs judges kind source gold bias
raters position first_share flips length longer_share models scores kl tokens finished tags measures difference
better words trained picks challenge_sets fairness model judge group n rest_n mean interval p_value p_adjusted
judge_agreement a b same kappa kappa_interval human many_models strength win_rate frontier run points label step
sqrt_kl reward fits bon rl alpha beta r2 unit refusals repetition distinct_1 perplexity peak recommended harness
value standard_error reward_model test longer_wins truth ranking accuracy groups method curves x series
held_out_looks provenance candidate baseline ties level smallest_detectable length_controlled_win_rate
length_controlled_standard_error anytime_interval more_prompts roc_auc ndcg mrr prompt responses preferences id set
role content wrote questions unparsable too_long not_judged
"""
NAMED = {"models", "judges", "many_models", "scores", "responses", "preferences", "tokens"}  # hold names, never fields


def poisoned(value: Any, key: str = "") -> Any:
    """The same with HOSTILE before every text and every name that comes from outside; `key` is where it stands."""
    if isinstance(value, dict):
        ours = () if key in NAMED and "mean" not in value else FIELDS.split()
        return {k if k in ours else HOSTILE + k: poisoned(part, k if k in ours else "") for k, part in value.items()}
    if isinstance(value, list):
        return [poisoned(part, key) for part in value]
    return HOSTILE + value if isinstance(value, str) and key not in ("kind", "better") else value


def hostile() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    metrics = poisoned(report_example.metrics())
    return metrics, poisoned(report_example.samples())


def test_hostile_text_stays_text_everywhere(tmp_path: Path) -> None:
    metrics, samples = hostile()
    assert metrics["base"] == HOSTILE + "base" and metrics["base"] in metrics["models"]
    assert metrics["verdict_by"] in metrics["judges"]
    found = written(tmp_path, metrics, samples)
    assert_text_stays_text(found)
    for head in [*HEADS.values(), *ALWAYS, "Read for yourself"]:
        assert head in found, f"{head} is not tested"
    head = found[found.index("<h1") : found.index("Before you ship")]
    assert "document.title" in head and "\u202e" not in head, "a name must not turn the verdict's words round"
    style = found[found.index("<style>") : found.index("</style>")]
    assert "owned" not in style and "198.51.100.7" not in style


# --- which examples are shown -----------------------------------------------------------------------------------


def many(count: int) -> list[dict[str, Any]]:
    rows = report_example.samples(count)
    for number, row in enumerate(rows):
        row["scores"]["reward"]["dpo"] = row["scores"]["reward"]["base"] + (1 if number < count - 30 else -number)
        row["preferences"]["reward"]["dpo"] = 1.0 if number < count - 30 else 0.0
    return rows


JUDGES = {"reward": {"words": "the reward model"}, "people": {"words": "people"}}


def test_the_biggest_regressions_are_always_kept() -> None:
    rows = many(examples.MOST_EXAMPLES + 300)
    found = examples.browser(rows, ["dpo", "ppo"], "base", JUDGES)
    assert found is not None
    assert len(found["examples"]) == examples.MOST_EXAMPLES and found["left_out"] == 300
    worst = [one["head"] for one in found["examples"] if "r0-0" in one["outcomes"].split()]
    assert worst == [row["prompt"][-1]["content"] for row in rows[-10:]], (
        "the lowest scores beside the base's are the last"
    )
    assert {token[0] for one in found["examples"] for token in one["outcomes"].split()} == set("wltr")


def test_long_texts_are_cut_and_it_is_said(tmp_path: Path) -> None:
    rows = report_example.samples(3)
    rows[0]["responses"]["dpo"] = "x" * 9_000
    rows[1]["prompt"] = [{"role": "user", "content": str(turn)} for turn in range(40)]
    found = written(tmp_path, report_example.metrics(), rows)
    assert "… 6,000 more characters" in found and "x" * 3_001 not in found
    assert "28 earlier turns are left out" in found


def test_what_was_left_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "MOST_EXAMPLES", 50)
    found = written(tmp_path, report_example.metrics(), report_example.samples(90))
    shown = found.count('<li class="example')
    assert shown >= 50 and f"{90 - shown} were\n  left out, and are in samples.jsonl" in found


def test_without_scores_a_regression_is_what_the_judge_dislikes() -> None:
    rows = report_example.samples(12)
    for number, row in enumerate(rows):
        row["scores"] = {}
        row["preferences"] = {"people": {"dpo": number / 12}}
    found = examples.browser(rows, ["dpo"], "base", {"people": {"words": "people"}})
    assert found is not None
    assert [one["outcomes"] for one in found["examples"]][:7] == ["l0-0 r0-0"] * 6 + ["t0-0"]


# --- pictures ---------------------------------------------------------------------------------------------------


def test_ticks_and_numbers() -> None:
    assert plots.ticks(0, 1) == pytest.approx([0, 0.5, 1])
    assert plots.ticks(-0.07, 0.93) == pytest.approx([0, 0.5])
    assert plots.ticks(3, 42) == pytest.approx([10, 20, 30, 40])
    numbers = {0: "0", 0.123456: "0.123", -2.5: "−2.5", 212.3: "212", 12345.6: "12,346", 100: "100"}
    assert {value: plots.number(value) for value in numbers} == numbers
    assert [plots.signed_points(x) for x in (0.06, -0.171, 0.001, -0.004)] == ["+6", "−17", "0", "0"]


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
@example(917677.9999999999, 1e-05)
def test_ticks_lie_inside_and_are_few(low: float, width: float) -> None:
    high = low + width
    if high > low:
        found = plots.ticks(low, high)
        assert len(found) <= 6
        assert all(low - width * 1e-6 <= tick <= high + width * 1e-6 for tick in found)


def test_pictures_of_little_or_nothing() -> None:
    assert plots.curve([], [], "none") is None
    assert plots.curve([1, 2], [None, float("nan")], "none") is None
    assert "circle" in (plots.curve([1], [2.0], "one") or "")
    assert "polyline" in (plots.curve([1, 2], [3.0, 3.0], "flat") or "")
    assert 'x="71.00%"' in plots.track(0.71, [0.6, 0.8], label="<b>")
    assert "&lt;b&gt;" in plots.track(0.71, None, label="<b>")


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


# --- a real browser ---------------------------------------------------------------------------------------------


@contextmanager
def opened(browser: Any, path: Path, width: int = 1280, scheme: str = "light") -> Iterator[Any]:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab = context.new_page()
    tab.goto(path.as_uri())
    yield tab
    context.close()


@pytest.mark.browser
def test_in_chromium_nothing_runs_and_nothing_loads(tmp_path: Path, browser: Any) -> None:
    path = write_report(tmp_path, *hostile())
    with on_a_phone(browser, path) as (tab, said):
        # The policy is a second lock: even an injected script and image do nothing.
        tab.evaluate(
            "document.body.insertAdjacentHTML('beforeend',"
            " `<img src='http://198.51.100.7/y' onerror=\"document.title='owned'\">`)"
        )
        tab.wait_for_timeout(200)
        assert tab.title() != "owned"
        assert any("content security policy" in text.lower() for text in said)


@pytest.mark.browser
def test_examples_are_filtered_by_keyboard_and_without_a_script(tmp_path: Path, browser: Any) -> None:
    rows = report_example.samples()
    path = write_report(tmp_path, report_example.metrics(), rows)

    def shown(tab: Any) -> list[str]:
        return [
            text.split("egg number ")[1].split()[0]
            for text in tab.locator(".example:visible summary").all_inner_texts()
        ]

    def expected(letter: str, model: str, inside: Any = lambda row: True) -> list[str]:
        sides = {"w": lambda p: p > 0.5, "l": lambda p: p < 0.5, "t": lambda p: p == 0.5}
        chosen = [n for n, row in enumerate(rows) if sides[letter](row["preferences"]["people"][model]) and inside(row)]
        return [str(number) for number in chosen]

    with opened(browser, path) as tab:
        assert len(shown(tab)) == len(rows)
        count = "getComputedStyle(document.querySelector('.count'), '::before').content"
        tab.locator("#o-all").focus()
        tab.keyboard.press("ArrowRight")
        assert shown(tab) == expected("w", "dpo") and len(shown(tab)) < len(rows)
        tab.keyboard.press("ArrowRight")
        assert shown(tab) == expected("l", "dpo")
        assert "counter(shown)" in tab.evaluate(count)
        tab.keyboard.press("Tab")
        tab.keyboard.press("ArrowRight")
        assert tab.locator("#m-1").is_checked() and shown(tab) == expected("l", "best of 4")
        tab.keyboard.press("ArrowLeft")
        tab.locator("#o-t").press("Space")
        assert shown(tab) == expected("t", "dpo") == ["0", "7", "14", "21"]
        tab.locator("#o-w").press("Space")
        groups = tab.locator("input[name=group]").evaluate_all(
            "all => all.map(one => one.parentElement.innerText.trim())"
        )
        tab.locator("input[name=group]").nth(groups.index("lang:de")).press("Space")
        assert shown(tab) == expected("w", "dpo", lambda row: "lang:de" in row["tags"])
        tab.locator("#o-all").press("Space")
        tab.locator("input[name=group]").nth(groups.index("safety")).press("Space")
        assert shown(tab) == [str(len(rows) - 1)]
        tab.locator("#o-r").press("Space")
        tab.locator("#g-all").press("Space")
        assert 0 < len(shown(tab)) <= examples.REGRESSIONS
        # one model beside the base, or all of them
        first = tab.locator(".example:visible").first
        if not first.locator("details").evaluate("one => one.open"):
            first.locator("summary").press("Enter")
        assert first.locator("article:visible h3").all_inner_texts()[1].startswith("DPO")
        assert first.locator("article:visible").count() == 2
        tab.locator("#every").press("Space")
        assert first.locator("article:visible").count() == 5


@pytest.mark.browser
def test_on_paper_stand_the_verdict_and_a_few_examples(tmp_path: Path, browser: Any) -> None:
    path = write_report(tmp_path, report_example.metrics(), report_example.samples(60))
    with opened(browser, path, 800) as tab:
        tab.emulate_media(media="print")
        assert tab.locator(".filters").is_hidden() and tab.locator("h1").is_visible()
        assert tab.locator(".example:visible").count() == examples.ON_PAPER
        assert tab.locator(".on-paper").is_visible()


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (360, "light")])
def test_axe_finds_nothing(tmp_path: Path, browser: Any, width: int, scheme: str) -> None:
    module = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing")
    path = write_report(tmp_path, report_example.metrics(), report_example.samples(6))
    # axe is a script: it runs in a copy of the page without the policy that forbids all scripts
    text = path.read_text()
    path.write_text(re.sub(r"<meta http-equiv=.Content-Security-Policy.*?>", "", text))
    with opened(browser, path, width, scheme) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        standards = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
        options = {"runOnly": {"type": "tag", "values": standards}}
        found = module.Axe().run(tab, options=options).response["violations"]
        assert [
            (one["id"], node["html"][:160], node["failureSummary"][:300]) for one in found for node in one["nodes"]
        ] == []
