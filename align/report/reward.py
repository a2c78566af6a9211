"""A reward model's report: one self-contained HTML file, from what reward.json says.

Texts of models and raters are hostile: Jinja's autoescape is on, nothing is marked safe but our own SVG, and the page's
Content-Security-Policy lets nothing run and nothing load. reward_words.py holds the sentences, reward_plots.py the
pictures, reward.html.jinja the layout.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align.report import plots, reward_plots, reward_words
from align.report.html import environment
from align.report.words import percent
from preferences.files import write_text

MOST_TAGS = 20


def write_reward_report(folder: str | Path, report: Mapping[str, Any]) -> Path:
    """Write reward.json and reward.html into `folder`, each whole or not at all; the path of the page."""
    folder = Path(folder)
    page = environment().get_template("reward.html.jinja").render(**context(report))
    write_text(folder / "reward.json", json.dumps(report, indent=2, sort_keys=True, allow_nan=False) + "\n")
    write_text(folder / "reward.html", page.encode("utf-8", "replace").decode("utf-8"))  # no lone surrogates
    return folder / "reward.html"


def context(report: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the template shows."""
    found, human, length, calibration = (report[key] for key in ("accuracy", "human", "length", "calibration"))
    scores, tags = report["scores"], list(report["tags"].items())
    verdict = reward_words.length_verdict(length)
    cards = [
        {
            "outcome": reward_words.side(found["model"]["interval"], 0.5),
            "title": "Accuracy",
            "figure": percent(found["model"]["accuracy"]),
            "unit": "of pairs",
            "words": reward_words.accuracy_words(report),
        },
        {
            "outcome": reward_words.side(human["difference"]["interval"], 0.0) if human else "unclear",
            "title": "Beside one rater",
            "figure": percent(human["rater"]["accuracy"]) if human else "–",
            "unit": "human ceiling" if human else "",
            "words": reward_words.human_words(human),
        },
        {
            "outcome": reward_words.side(calibration["gain"]["interval"], 0.0),
            "title": "Its probabilities",
            "figure": plots.number(calibration["log_loss"]),
            "unit": "log loss",
            "words": reward_words.calibration_words(calibration),
        },
    ]
    return {
        "report": report,
        "headline": reward_words.headline(report),
        "cards": cards,
        "warnings": reward_words.warnings(report),
        "forests": _forests(found, human),
        "ranking_words": reward_words.ranking_words(report.get("ranking")),
        "length_words": reward_words.length_words(length),
        "length_is_fine": length is not None and verdict is None,
        "length_rows": _length_rows(length),
        "parts": [
            _rows(f"{_characters(row['low'])} to {_characters(row['high'])} characters", row)
            for row in report["lengths"]
        ],
        "tags": [{**_row(tag, numbers, "square"), "count": numbers["n"]} for tag, numbers in tags[:MOST_TAGS]],
        "tags_left_out": max(0, len(tags) - MOST_TAGS),
        "reliability": reward_plots.reliability(
            calibration["bins"], "What the model says against what raters said, in ten bins"
        ),
        "histogram": reward_plots.histogram(
            scores["edges"], scores["better"], scores["worse"], "Scores of preferred and of other responses"
        ),
        "axis": plots.axis(),
        "keys": {"model": plots.key("square"), "longer": plots.key("diamond"), "rater": plots.key("circle")},
    }


def _row(name: str, fields: Mapping[str, Any], shape: str) -> dict[str, Any]:
    """One row of a forest plot."""
    label = f"{name}: {percent(fields['accuracy'])}"
    drawing = plots.track(fields["accuracy"], fields["interval"], label=label, shape=shape)
    return {"name": name, "fields": fields, "plot": drawing, "count": None}


def _rows(name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    rows = [_row("Reward model", part["model"], "square"), _row("Longer wins", part["longer_wins"], "diamond")]
    return {"name": f"{name} ({part['model']['n']} pairs)", "rows": rows}


def _forests(found: Mapping[str, Any], human: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    forests = [
        {
            "name": "Which of two do the raters prefer?",
            "rows": [
                _row("Reward model", found["model"], "square"),
                _row("Longer wins", found["longer_wins"], "diamond"),
            ],
        }
    ]
    if human:
        rows = [_row("Reward model", human["model"], "square"), _row("One rater", human["rater"], "circle")]
        forests.append({"name": "Which side do most of the other raters take?", "rows": rows})
    return forests


def _length_rows(length: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if length is None:
        return []
    named = [
        ("Where the longer one won", length["where_longer_won"]),
        ("Where the shorter one won", length["where_shorter_won"]),
        ("Both counted the same", length["balanced"]),
        (f"Of like length (within {100 * (length['matched']['ratio'] - 1):.0f}%)", length["matched"]),
    ]
    return [_row(name, fields, "square") for name, fields in named if fields]


def _characters(value: float) -> str:
    return f"{value:,.0f}"
