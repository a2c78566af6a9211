"""The judges of an evaluation as the report names them: who decides, how they agree, and where they lean.

Fields of metrics.json go in; words and pictures come out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from align.report import plots
from align.report.words import capital, joined, percent, quoted, spread

KINDS = {  # in the order of how much a verdict of theirs says: words, mark, and what it is
    "known truth": (
        "the known truth",
        "circle",
        "The preference that the simulated raters were given: what they would say without noise.",
    ),
    "people": ("people", "triangle", "People compared two answers to the same prompt."),
    "gold": (
        "the gold reward model",
        "square",
        "A program that learnt from people's rankings to score answers. It was kept away from all training.",
    ),
    "judgements": ("the judgements", "ring", "Verdicts given elsewhere, read from a file."),
    "language model": (
        "the language model",
        "cross",
        "A language model was shown both answers, in both orders, and asked which is better.",
    ),
    "reward model": (
        "the reward model",
        "square",
        "A program that learnt from people's rankings to score answers. Models that were trained to please it, or on "
        "the same rankings, please it for that alone: a hint, not a proof.",
    ),
    "function": ("the function", "diamond", "A rule written as a program."),
}


def judges_of(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every judge, who decides first, then by how much they say; with the words and the mark for it everywhere."""
    given = metrics.get("judges") or {}
    used = [judge for facts in metrics["models"].values() for judge in facts.get("judges") or {}]
    kinds = {judge: _kind(given.get(judge) or {"kind": judge}) for judge in [*given, *used]}
    first = metrics.get("verdict_by")
    order = sorted(kinds, key=lambda judge: (judge != first, list(KINDS).index(kinds[judge]), judge))
    rows: dict[str, dict[str, Any]] = {}
    for judge in order:
        facts = given.get(judge) or {}
        words, shape, about = KINDS[kinds[judge]]
        if kinds[judge] in ("function", "judgements") or list(kinds.values()).count(kinds[judge]) > 1:
            words = f"{words} {quoted(judge)}"
        raters = facts.get("raters")
        rows[judge] = {
            "words": words,
            "kind": kinds[judge],
            "who": f"{raters:,} {words}" if raters and kinds[judge] == "people" else words,
            "many": kinds[judge] == "people",
            "about": about + (f" {raters:,} of them did." if raters else ""),
            "source": facts.get("source") or "",
            "trained": facts.get("trained") or [],
            "picked": facts.get("picks") or [],
            "key": plots.key(shape),
            "shape": shape,
        }
    names = {judge: str(row["words"]) for judge, row in rows.items()}
    for judge, row in rows.items():
        facts = given.get(judge) or {}
        if between := facts.get("between_raters"):
            row["about"] += f" Two of them say the same of the same answers in {_rate(between)}{_of(between, 'cases')}."
        lean = bias_words(names[judge], facts.get("bias") or {}, names)
        row["bias"] = [*ties_only(names[judge], judge, metrics), *lean, *left_out_words(facts)]
    return rows


def _kind(facts: Mapping[str, Any]) -> str:
    kind = facts.get("kind")
    if kind == "reward model" and facts.get("gold"):
        return "gold"
    return kind if kind in KINDS else "function"


def say(judge: Mapping[str, Any], one: str, many: str) -> str:
    """The judge with its verb: "people agree", "the reward model agrees"."""
    return f"{judge['words']} {many if judge['many'] else one}"


def ties_only(words: str, judge: str, metrics: Mapping[str, Any]) -> list[str]:
    """Of a judge that found no answer better than another, since its even leanings would look like fairness."""
    models = (metrics.get("models") or {}).values()
    pairs = [pair for facts in models if (pair := (facts.get("judges") or {}).get(judge))]
    seen, ties = (sum(pair.get(key) or 0 for pair in pairs) for key in ("n", "ties"))
    if not seen or ties < seen:
        return []
    prefer = "prefer" if _many(words) else "prefers"
    which = "Its one comparison is a tie" if seen == 1 else f"All {seen:,} comparisons are ties"
    return [f"{which}: {words} {prefer} nothing on the whole, and can't tell these models apart."]


# --- where they lean --------------------------------------------------------------------------------------------


def bias_words(judge: str, bias: Mapping[str, Any], names: Mapping[str, str] | None = None) -> list[str]:
    """What is known of a judge that leans to what stands first, or to what is longer; `names`: judges in words."""
    found = []
    position, length = bias.get("position") or {}, bias.get("length") or {}
    if share := position.get("first_share"):
        shown = "they are" if _many(judge) else "it is"
        found.append(_lean(judge, share, f"the answer that {shown} shown first", f"the one that {shown} shown last"))
    if flips := position.get("flips"):
        changes = "they change their" if _many(judge) else "it changes its"
        found.append(
            f"Shown the same two answers the other way round, {changes} mind in {_rate(flips)}"
            f"{_of(flips, 'pairs')}; both orders are averaged, so that this can't favour a model."
        )
    if share := length.get("longer_share"):
        found.append(_lean(judge, share, "the longer answer", "the shorter answer"))
    for other, beside in (length.get("beside") or {}).items():
        if beside.get("judge") and beside.get("people"):
            found.append(
                f"On the answers that both judged, it prefers the longer one in {_rate(beside['judge'])}, "
                f"{(names or {}).get(other, other)} in {_rate(beside['people'])}."
            )
    return found


def left_out_words(facts: Mapping[str, Any]) -> list[str]:
    """What of a judge's verdicts does not count, and whether it judges what it wrote itself."""
    found = []
    if wrote := facts.get("wrote"):
        found.append(f"It wrote the answers of {joined(list(wrote))} itself, and may like its own style.")
    unclear, long, none = (facts.get(key) or 0 for key in ("unparsable", "too_long", "not_judged"))
    if unclear or long:
        found.append(
            f"Of {facts['questions']:,} questions, {unclear:,} got no clear verdict and {long:,} were too long;"
            f" {none:,} pairs of answers are left out for that, and nothing was guessed."
        )
    elif none:
        found.append(f"{none:,} answers have no score from it, and count nowhere in what it says.")
    if other := sum(facts.get(key) or 0 for key in ("other_prompts", "other_models", "other_responses")):
        found.append(
            f"{other:,} of {facts['judgements']:,} verdicts in the file are about other answers, and left out."
        )
    if unsaid := facts.get("responses_not_said"):
        found.append(f"{unsaid:,} verdicts don't say which answers they are about; they are taken to be about these.")
    return found


def _lean(judge: str, share: Mapping[str, Any], one: str, other: str) -> str:
    interval = share.get("interval")
    low, high = interval or (0.0, 1.0)
    lean, show, prefer = ("lean", "show", "they prefer") if _many(judge) else ("leans", "shows", "it prefers")
    verdict = f"{lean} to {one}" if low > 0.5 else f"{lean} to {other}" if high < 0.5 else f"{show} no leaning to {one}"
    seen = f"{prefer} {one} in {_rate(share)}{_of(share, 'verdicts')}; 50% would be even"
    return f"{capital(judge)} {verdict}: {seen}."


def _many(judge: str) -> bool:
    return judge.startswith("people")


def _rate(fields: Mapping[str, Any] | float) -> str:
    """A share with its interval where there is one."""
    if not isinstance(fields, Mapping):
        return percent(fields)
    interval = fields.get("interval")
    return f"{percent(fields['mean'])} ({spread(interval)})" if interval else percent(fields["mean"])


def _of(fields: Mapping[str, Any] | float, units: str) -> str:
    return f" of {fields['n']:,} {units}" if isinstance(fields, Mapping) and fields.get("n") else ""


# --- how they agree ---------------------------------------------------------------------------------------------

_AGREEMENT = ((0.8, "almost perfect"), (0.6, "substantial"), (0.4, "moderate"), (0.2, "fair"), (1e-9, "slight"))


def agreement_rows(metrics: Mapping[str, Any], judges: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Pairs of judges on the same items, those with people first: {"label", "same", "plot", "words"}."""
    rows = []
    found = [row for row in metrics.get("judge_agreement") or [] if row.get("same")]
    for row in sorted(found, key=lambda row: (not row.get("human"), -row["same"]["mean"])):
        names = joined([judges[side]["words"] if side in judges else side for side in (row["a"], row["b"])])
        same = row["same"]
        drawing = plots.track(
            same["mean"], same.get("interval"), label=f"{names}: {percent(same['mean'])}", shape="ring", line=None
        )
        about = {"label": capital(names), "human": bool(row.get("human")), "n": row.get("n") or same.get("n")}
        rows.append({**about, "same": same, "plot": drawing, "words": _kappa_words(row)})
    return rows


def _kappa_words(row: Mapping[str, Any]) -> str:
    """Cohen's kappa with a gloss; the steps are Landis and Koch's (1977), which are a convention."""
    kappa, interval = row.get("kappa"), row.get("kappa_interval")
    if kappa is None:
        return ""
    step = next((words for least, words in _AGREEMENT if kappa >= least), "none")
    between = f", {_bound(interval[0])} to {_bound(interval[1])}" if interval else ""
    return f"beyond what chance gives: {step} (kappa {_bound(kappa)}{between})"


def _bound(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def strength_rows(metrics: Mapping[str, Any], judges: Mapping[str, Any], base: str) -> list[dict[str, Any]]:
    """For each judge that compared three models or more, all of them on one scale: {"judge", "rows", "axis"}."""
    tables = []
    for judge in [*judges, *[j for j in metrics.get("many_models") or {} if j not in judges]]:
        models = (metrics.get("many_models") or {}).get(judge) or {}
        if len(models) < 3:
            continue
        ends = [end for fields in models.values() for end in (fields.get("interval") or [fields["strength"]])]
        span = plots.padded(min(ends), max(ends))
        rows = [
            {
                "model": model,
                "is_base": model == base,
                "fields": fields,
                "plot": plots.track(
                    fields["strength"],
                    fields.get("interval"),
                    label=f"{model}: {plots.number(fields['strength'])}",
                    shape=judges[judge]["shape"] if judge in judges else "circle",
                    span=span,
                    line=0.0,
                ),
            }
            for model, fields in sorted(models.items(), key=lambda item: (-item[1]["strength"], item[0]))
        ]
        words = judges[judge]["words"] if judge in judges else judge
        tables.append({"judge": words, "rows": rows, "axis": plots.axis(span, percent=False)})
    return tables


def names_of(judges: Sequence[Mapping[str, Any]]) -> str:
    return joined([judge["words"] for judge in judges])
