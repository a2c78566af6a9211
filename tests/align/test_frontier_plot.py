"""The picture of √KL and reward: what it says, what it marks, and that no two texts cover one another."""

import itertools
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.report.frontier_plot import frontier_section, plane
from tests.align.pages import HOSTILE


def mean(value: float, half: float = 0.1) -> dict[str, Any]:
    return {"mean": value, "interval": [value - half, value + half], "n": 120, "standard_error": half / 1.96}


def point(step: int, kl: float, reward: float, gold: float) -> dict[str, Any]:
    where = {"label": f"step {step}", "kind": "checkpoint", "step": step, "kl": mean(kl, kl / 20)}
    return {**where, "sqrt_kl": math.sqrt(kl), "reward": mean(reward), "gold": mean(gold)}


def best_of(n: int, reward: float, gold: float) -> dict[str, Any]:
    kl = math.log(n) - (n - 1) / n
    bound = {"mean": kl, "interval": None, "n": 120, "standard_error": None, "bound": True}
    where = {"label": f"best of {n}", "kind": "best of n", "n": n, "kl": bound, "sqrt_kl": math.sqrt(kl)}
    return {**where, "reward": mean(reward), "gold": mean(gold)}


def fragment(**more: Any) -> dict[str, Any]:
    """`frontier` of a metrics.json: a run that went too far."""
    return {
        "run": "runs/ppo",
        "reward_model": "runs/reward",
        "gold": "gold",
        "best_of": 16,
        "prompts": 120,
        "base": {"label": "base", "reward": {"mean": -1.2, "std": 0.8}, "gold": {"mean": 0.3, "std": 1.4}},
        "points": [
            *(best_of(n, 0.5 * math.log2(n), 0.4 * math.log2(n)) for n in (2, 4, 8, 16)),
            *(point(*one) for one in ((20, 1, 0.9, 0.7), (40, 4, 1.7, 1.0), (60, 8, 2.3, 0.8), (80, 12, 2.7, 0.4))),
        ],
        "fits": {
            "bon": {
                "gold": {
                    "alpha": 1.1,
                    "alpha_interval": [1.0, 1.2],
                    "beta": 0.1,
                    "beta_interval": [0.0, 0.2],
                    "r2": 0.9,
                },
                "reward": {"alpha": 1.4, "alpha_interval": [1.3, 1.5], "beta": 0.0, "beta_interval": [-0.1, 0.1]},
            },
            "rl": {
                "gold": {"alpha": 0.8, "alpha_interval": [0.7, 0.9], "beta": 0.5, "beta_interval": [0.4, 0.6]},
                "reward": {"alpha": 0.9, "alpha_interval": [0.8, 1.0], "beta": 0.1, "beta_interval": [0.0, 0.2]},
            },
        },
        "peak": {"sqrt_kl": 1.82, "interval": [1.6, 2.1], "gold": 1.0, "form": "rl"},
        "recommended": "step 40",
        "words": "Use step 40.",
        **more,
    }


def boxes(svg: str) -> list[tuple[float, float, float, float]]:
    """(left, top, right, bottom) of each text, at a generous width a letter."""
    found = []
    for x, y, anchor, text in re.findall(r'<text x="([\d.-]+)" y="([\d.-]+)" text-anchor="(\w+)"[^>]*>([^<]*)<', svg):
        wide = 6.2 * len(text)
        left = float(x) - {"start": 0, "middle": wide / 2, "end": wide}[anchor]
        found.append((left, float(y) - 9, left + wide, float(y) + 1))
    return found


def assert_no_text_covers_another(svg: str) -> None:
    for a, b in itertools.combinations(boxes(svg), 2):
        assert not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]), (a, b)
    assert all(left >= -1 and right <= 361 for left, _, right, _ in boxes(svg))


def test_the_picture_says_where_the_gold_reward_falls_and_what_to_take() -> None:
    found = fragment()
    svg = str(plane(found))
    assert svg.count('class="error"') == 16, "an interval of each reward of each point"
    assert svg.count('class="fit bon"') == svg.count('class="fit rl"') == 2
    assert 'class="band"' in svg and "from here on the gold reward falls" in svg
    assert "<text" in svg and re.search(r'class="named">40</text>', svg)
    assert svg.count('class="best"') == 1
    assert_no_text_covers_another(svg)
    page = str(frontier_section(found))
    assert "<p>Use step 40.</p>" in page
    assert "α 0.80 (0.70 to 0.90), β 0.50 (0.40 to 0.60)" in page
    assert "best of 16" in page


def test_nothing_is_marked_that_the_numbers_do_not_say() -> None:
    fits = {form: {"gold": None, "reward": None} for form in ("bon", "rl")}
    page = str(frontier_section(fragment(peak=None, fits=fits, recommended="base")))
    assert 'class="peak"' not in page and 'class="band"' not in page
    assert 'class="fit' not in page and 'class="best"' not in page
    assert frontier_section(None) is None
    assert frontier_section(fragment(points=[])) is None


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 30), st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=25),
    st.one_of(st.none(), st.floats(0, 5)),
)
def test_no_text_covers_another_wherever_the_points_lie(
    places: list[tuple[float, float, float]], peak: float | None
) -> None:
    points = [point(1000 * number, *place) for number, place in enumerate(places)]
    top = None if peak is None else {"sqrt_kl": min(peak, points[0]["sqrt_kl"]), "interval": None, "gold": 1.0}
    assert_no_text_covers_another(str(plane(fragment(points=points, peak=top, recommended="step 0"))))


def test_hostile_names_stay_text() -> None:
    points = [{**point(20, 1, 0.9, 0.7), "label": HOSTILE, "step": None}]
    page = str(frontier_section(fragment(points=points, words=HOSTILE, recommended=HOSTILE)))
    assert "<script" not in page and "<img" not in page and "&lt;script&gt;" in page


def test_on_a_phone_nothing_covers_anything(tmp_path: Path, browser: Any) -> None:
    """In a real browser, whose letters are as wide as they are."""
    from align.report.html import environment

    style = environment().get_template("style.css.jinja").render()
    section = frontier_section(fragment())
    page = f"<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'><style>{style}</style>"
    (tmp_path / "page.html").write_text(f"{page}<main><section><h2>How far?</h2>{section}</section></main>")
    for width in (360, 1200):
        tab = browser.new_page(viewport={"width": width, "height": 900})
        tab.goto((tmp_path / "page.html").as_uri())
        texts = tab.eval_on_selector_all("svg text", "all => all.map(t => t.getBoundingClientRect().toJSON())")
        assert len(texts) > 12
        for a, b in itertools.combinations(texts, 2):
            across = min(a["right"], b["right"]) - max(a["left"], b["left"])
            assert across <= 0 or min(a["bottom"], b["bottom"]) - max(a["top"], b["top"]) <= 4, (a, b)  # line height
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        tab.close()


@pytest.mark.parametrize("recommended", ["step 80", "best of 2"])
def test_the_recommended_point_always_has_its_name(recommended: str) -> None:
    assert 'class="named"' in str(plane(fragment(recommended=recommended)))
