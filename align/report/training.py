"""How training went: the reward model beside simple rules, what of a known truth was recovered, and the curves."""

from collections.abc import Mapping
from typing import Any

from align.report import plots
from align.report.words import measured, percent, reward_words

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

LABELS = {"roc_auc": "ROC-AUC", "ndcg": "NDCG", "mrr": "MRR", "ece": "calibration error"}
RANKING = {  # measure -> what it is, in a few words
    "roc_auc": "share of pairs of a liked and a disliked response that it puts in the right order; 0.5 is a coin",
    "ndcg": "how well it ranks several responses, the top counting most; 1 is the raters' own order",
    "mrr": "1 over the place where it puts the raters' favourite, on average; 1 is always first",
    "ece": "how far its probabilities are off, on average; 0 is best",
    "calibration": "how far its probabilities are off, on average; 0 is best",
    "rankings": "of several responses, which NDCG and MRR are about",
    "brier": "mean squared error of its probabilities; 0 is best, 0.25 a coin",
    "log_loss": "how badly its probabilities fit, in nats; 0.693 is a coin, lower is better",
}


def reward_part(reward: Mapping[str, Any]) -> dict[str, Any]:
    """The reward model's accuracy beside those of simple rules, and its ranking measures."""
    truth = reward.get("truth") or {}
    test, longer = reward.get("test"), reward.get("longer_wins")
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
        "words": reward_words(test, longer, reward.get("difference")) if test else "",
        "rows": rows,
        "ranking": _ranking(reward.get("ranking") or {}),
        "correlation": truth.get("correlation"),
        "scatter": plots.scatter(truth.get("points") or [], "Known-truth score against the reward model's score"),
    }


def _ranking(ranking: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = []
    chance = ranking.get("chance") or {}
    for name, value in ranking.items():
        if isinstance(value, Mapping) and "mean" in value:
            mean, interval = measured(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            mean, interval = plots.number(value), ""
        else:
            continue
        words = RANKING.get(name, "") + (f"; chance gives {plots.number(chance[name])}" if name in chance else "")
        label = LABELS.get(name) or name.replace("_", " ")
        rows.append({"name": label, "value": mean, "interval": interval, "words": words})
    return rows


def truth_part(models: Mapping[str, Any]) -> dict[str, Any] | None:
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


def curves_part(runs: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
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
