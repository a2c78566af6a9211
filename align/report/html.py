"""The report: one self-contained HTML file for the owner, who decides whether the aligned model ships.

This file gathers what is shown; words.py holds the sentences, plots.py the pictures, report.html.jinja the layout.
Model output is hostile text: Jinja's autoescape is on, nothing is marked safe but our own SVG, and the page's
Content-Security-Policy lets nothing run and nothing load.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from align.report import plots
from align.report.words import (
    evidence,
    headline,
    held_out_words,
    limit,
    measured,
    minutes,
    name_of,
    outcome,
    percent,
    reward_words,
    second_opinion,
    spread,
    verdict,
    warnings,
)
from preferences.files import write_text

KINDS = {  # in the order of how much a verdict of theirs says
    "known truth": ("the known truth", "circle"),
    "reward model": ("the reward model", "square"),
    "function": ("the function", "diamond"),
}
MOST_EXAMPLES = 60

CURVES = {  # metric -> what it is, in a few words
    "loss": "how badly the training data are fitted (lower is better)",
    "train_loss": "how badly the training data are fitted (lower is better)",
    "eval_loss": "the same on data kept out of training (lower is better)",
    "accuracy": "share of pairs that it orders as the raters did",
    "eval_accuracy": "share of held-out pairs that it orders as the raters did",
    "rewards/accuracies": "share of pairs whose preferred response it favours",
    "rewards/margins": "how far it favours the preferred response (higher is clearer)",
    "reward": "score by the rewards (what RLOO and GRPO try to raise)",
    "kl": "distance from the starting model, in nats per token",
    "objective/scores": "score by the reward model (what PPO tries to raise)",
    "eval/scores": "the same on held-out prompts (what decides which policy is kept)",
    "objective/kl": "distance from the starting model, in nats per response",
    "eval/kl": "the same on held-out prompts",
    "response/ended": "share of responses that ended by themselves",
    "response/tokens": "length of the responses, in tokens",
}


def write_report(folder: Path, metrics: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> Path:
    """Write `report.html` into `folder`, whole or not at all, from what metrics.json and the samples say; its path.

    Optional keys of `metrics` may be missing or null; their sections are then left out.
    """
    path = Path(folder) / "report.html"
    page = environment().get_template("report.html.jinja").render(**context(metrics, samples))
    write_text(path, page.encode("utf-8", "replace").decode("utf-8"))  # a lone surrogate is not UTF-8
    return path


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
        percent=percent, number=plots.number, spread=spread, measured=measured, name=name_of, minutes=minutes
    )
    return environment


# --- what the template is given ---------------------------------------------------------------------------------


def context(metrics: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything that the template shows, from `metrics` and `samples`."""
    models, base = metrics["models"], metrics["base"]
    base_words = "the base" if base == "base" else f"the base ({base})"
    judges = _judges(metrics)
    cards = [_card(model, facts, base_words, judges) for model, facts in models.items() if model != base]
    reward = metrics.get("reward_model")
    return {
        "title": metrics.get("title") or "Evaluation",
        "simulated": bool(metrics.get("simulated")),
        "headline": headline({card["model"]: card["outcome"] for card in cards}, base_words),
        "prompts": metrics.get("prompts"),
        "base": base,
        "cards": cards,
        "judges": judges,
        "models": models,
        "warnings": [
            text
            for model, facts in models.items()
            if model != base
            for text in warnings(model, facts, models.get(base, {}))
        ],
        "reward": reward and _reward(reward),
        "truth": _truth(models),
        "recovered": metrics.get("recovered"),
        "curves": _curves(metrics.get("curves") or {}),
        "looks": {run: held_out_words(looks) for run, looks in (metrics.get("held_out_looks") or {}).items()},
        "examples": [_example(sample, list(models), base, judges) for sample in samples[:MOST_EXAMPLES]],
        "sampled": len(samples),
        "provenance": metrics.get("provenance") or {},
        "seconds": metrics.get("seconds"),
        "axis": plots.axis(),
    }


def _judges(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Judges by how much their verdict says, each with the words and the mark that stand for it everywhere."""
    given = metrics.get("judges") or {}
    used = [judge for facts in metrics["models"].values() for judge in facts.get("judges") or {}]
    kinds = {judge: given.get(judge, {}).get("kind", judge) for judge in [*given, *used]}
    kinds = {judge: kind if kind in KINDS else "function" for judge, kind in kinds.items()}
    rows = {}
    for judge in sorted(kinds, key=lambda judge: list(KINDS).index(kinds[judge])):
        kind = kinds[judge]
        words, shape = KINDS[kind]
        if kind == "function" or list(kinds.values()).count(kind) > 1:
            words = f"{words} “{judge}”"
        source = given.get(judge, {}).get("source", "")
        rows[judge] = {"words": words, "kind": kind, "source": source, "key": plots.key(shape), "shape": shape}
    return rows


def _card(model: str, facts: Mapping[str, Any], base: str, judges: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict on one model, by the judge that says most, with a row for each judge."""
    rows = []
    for judge, about in judges.items():
        fields = (facts.get("judges") or {}).get(judge)
        if fields is None:
            continue
        label = f"{about['words']}: {percent(fields['win_rate'])}, interval {spread(fields['interval'])}"
        drawing = plots.track(
            fields["win_rate"],
            fields["interval"],
            label=label,
            shape=about["shape"],
            detectable=fields.get("smallest_detectable"),
        )
        rows.append({"judge": judge, **about, "fields": fields, "outcome": outcome(fields), "plot": drawing})
    first = rows[0] if rows else None
    result = first["outcome"] if first else "none"
    notes = [second_opinion(row["fields"], row["words"], row["kind"], rows[0]["words"], result) for row in rows[1:]]
    return {
        "model": model,
        "outcome": result,
        "verdict": verdict(model, base, result),
        "evidence": evidence(first["fields"], first["words"]) if first else "No judge has compared it with the base.",
        "limit": limit(first["fields"]) if first and result == "unclear" else None,
        "second_opinions": notes,
        "rows": rows,
    }


def _reward(reward: Mapping[str, Any]) -> dict[str, Any]:
    truth = reward.get("truth") or {}
    test, longer = reward["test"], reward.get("longer_wins")
    named = [
        ("By the raters' rankings", "Reward model", test, "square"),
        ("By the raters' rankings", "“Longer is better”", longer, "diamond"),
        ("By the known truth", "Reward model", truth.get("pairs"), "square"),
        ("By the known truth", "The raters' consensus", truth.get("raters"), "circle"),
    ]
    rows: dict[str, list[dict[str, Any]]] = {}
    for measure, name, fields, shape in named:
        if fields:
            label = f"{name}, {measure}: {percent(fields['accuracy'])}"
            drawing = plots.track(fields["accuracy"], fields["interval"], label=label, shape=shape)
            rows.setdefault(measure, []).append({"name": name, "fields": fields, "plot": drawing})
    return {
        "source": reward.get("source"),
        "words": reward_words(test, longer, reward.get("difference")),
        "rows": rows,
        "correlation": truth.get("correlation"),
        "scatter": plots.scatter(truth.get("points") or [], "Known-truth score against the reward model's score"),
    }


def _truth(models: Mapping[str, Any]) -> dict[str, Any] | None:
    """The mean known-truth score of every model on one common range."""
    scored = {model: facts["truth"] for model, facts in models.items() if facts.get("truth")}
    if not scored:
        return None
    ends = [end for fields in scored.values() for end in (fields.get("interval") or [fields["mean"]])]
    span = plots.padded(min(ends), max(ends))
    rows = [
        {
            "model": model,
            "fields": fields,
            "plot": plots.track(
                fields["mean"],
                fields.get("interval"),
                label=f"{model}: {plots.number(fields['mean'])}",
                span=span,
                line=None,
            ),
        }
        for model, fields in scored.items()
    ]
    return {"rows": rows, "axis": plots.axis(span, percent=False)}


def _curves(runs: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    drawn = {}
    for run, data in runs.items():
        charts = []
        for metric, values in (data.get("series") or {}).items():
            words = CURVES.get(metric, metric)
            picture = plots.curve(data["x"], values, f"{run}, {words}")
            if picture:
                charts.append({"metric": metric, "words": words, "plot": picture})
        if charts:
            drawn[run] = charts
    return drawn


def _example(sample: Mapping[str, Any], models: list[str], base: str, judges: Mapping[str, Any]) -> dict[str, Any]:
    """One prompt with every model's response, and each judge's word on it."""
    responses = []
    for model in sorted((model for model in models if model in sample["responses"]), key=lambda model: model != base):
        labels = []
        for judge, about in judges.items():
            scores = (sample.get("scores") or {}).get(judge) or {}
            score, other = scores.get(model), scores.get(base)
            if score is None:
                continue
            result = None
            if model != base and other is not None:
                result = "wins" if score > other else "loses" if score < other else "ties"
            labels.append({"judge": judge, "key": about["key"], "score": score, "result": result})
        tokens = (sample.get("tokens") or {}).get(model)
        responses.append({"model": model, "text": sample["responses"][model], "labels": labels, "tokens": tokens})
    return {"prompt": sample["prompt"], "responses": responses}
