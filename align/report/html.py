"""The report: one self-contained HTML file for the owner, who decides whether the aligned model ships.

This file gathers what is shown, from metrics.json and samples.jsonl. verdict.py, judges.py, changes.py and training.py
hold the sentences by topic, plots.py the pictures, examples.py the choice of examples, report*.html.jinja the layout.
Model output is hostile text: Jinja's autoescape is on, nothing is marked safe but our own SVG, and the page's
Content-Security-Policy lets nothing run and nothing load. Filters are radio buttons that CSS alone looks at.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from align.report import plots
from align.report.changes import (
    fairness_tables,
    harness_tables,
    measure_blocks,
    sampling_words,
    slice_blocks,
    warnings,
    worse_words,
)
from align.report.examples import browser
from align.report.frontier_plot import frontier_section
from align.report.judges import agreement_rows, judges_of, strength_rows
from align.report.training import curves_part, reward_part, truth_part
from align.report.unseen import prompts_words
from align.report.verdict import Verdict, headline, the_base, the_model, ties_words, verdict
from align.report.words import capital, held_out_words, label_of, measured, minutes, name_of, percent, spread
from preferences.files import write_text
from preferences.terminal import on_one_line


def write_report(folder: Path, metrics: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> Path:
    """Write `report.html` into `folder`, whole or not at all, from what metrics.json and the samples say; its path.

    Optional keys of `metrics` may be missing or null; their sections are then left out.
    """
    path = Path(folder) / "report.html"
    page = environment().get_template("report.html.jinja").render(**context(metrics, samples))
    write_text(path, page.encode("utf-8", "replace").decode("utf-8"))  # a lone surrogate is not UTF-8
    return path


@cache
def environment() -> jinja2.Environment:
    """Jinja for our pages: everything from outside is escaped, and a name that is missing is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent,
        number=plots.number,
        spread=spread,
        measured=measured,
        name=name_of,
        minutes=minutes,
        capital=capital,
        label=label_of,
        model=lambda name: capital(the_model(name)),
    )
    return environment


def context(metrics: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything that the template shows, from `metrics` and `samples`."""
    models, base = metrics["models"], metrics["base"]
    judges = judges_of(metrics)
    verdicts = verdicts_of(metrics, judges)
    measures = measure_blocks(metrics, [one.model for one in verdicts])
    reward = metrics.get("reward_model")
    return {
        "title": metrics.get("title") or "Evaluation",
        "simulated": bool(metrics.get("simulated")),
        "headline": headline(verdicts, metrics),
        "prompts": metrics.get("prompts"),
        "prompts_words": prompts_words(metrics),
        "base": base,
        "the_base": the_base(metrics),
        "cards": [_card(one, worse_words(metrics, one.model, measures)) for one in verdicts],
        "several": len(verdicts) > 1,
        "judges": judges,
        "models": models,
        "warnings": warnings(metrics),
        "strengths": strength_rows(metrics, judges, base),
        "slices": slice_blocks(metrics, verdicts),
        "measures": measures,
        "harness": harness_tables(metrics),
        "agreement": agreement_rows(metrics, judges),
        "fairness": fairness_tables(metrics, judges),
        "frontier": frontier_section(metrics.get("frontier")),
        "reward": reward and reward_part(reward),
        "truth": truth_part(models),
        "recovered": metrics.get("recovered"),
        "curves": curves_part(metrics.get("curves") or {}),
        "looks": {run: held_out_words(looks) for run, looks in (metrics.get("held_out_looks") or {}).items()},
        "browse": browser(samples, [one.model for one in verdicts], base, judges),
        "sampling": (metrics.get("sampling") or {}).get("settings") or {},
        "sampling_words": sampling_words(metrics),
        "provenance": metrics.get("provenance") or {},
        "seconds": metrics.get("seconds"),
        "axis": plots.axis(),
    }


def verdicts_of(metrics: Mapping[str, Any], judges: Mapping[str, Any]) -> list[Verdict]:
    """The verdict on every model but the base, the one with the highest win rate first, those not judged last."""
    found = [verdict(model, metrics, judges) for model in metrics["models"] if model != metrics["base"]]
    return sorted(found, key=lambda one: (-one.opinions[0].fields["win_rate"] if one.opinions else 1.0, one.model))


def verdict_lines(metrics: Mapping[str, Any], model: str | None = None) -> list[str]:
    """The page's first sentence about each model, or about one, as text for a terminal."""
    found = verdicts_of(metrics, judges_of(metrics))
    return [on_one_line(one.sentence) for one in found if model in (None, one.model)]


def _card(one: Verdict, measured_too: str) -> dict[str, Any]:
    """The verdict on one model, and a row of the forest plot for each judge."""
    rows = []
    for opinion in one.opinions:
        fields, about = opinion.fields, opinion.about
        label = f"{about['words']}: {percent(fields['win_rate'])}, interval {spread(fields['interval'])}"
        drawing = plots.track(
            fields["win_rate"],
            fields["interval"],
            label=label,
            shape=about["shape"],
            detectable=fields.get("smallest_detectable"),
        )
        rows.append(
            {
                **about,
                "fields": fields,
                "plot": drawing,
                "trained": opinion.trained,
                "picks": opinion.picks,
            }
        )
    return {
        "model": one.model,
        "outcome": one.outcome,
        "lead": one.lead,
        "rest": one.rest,
        "notes": [*one.notes, measured_too] if measured_too else one.notes,
        "ties": ties_words(one.opinions[0].fields) if one.opinions else "",
        "rows": rows,
    }
