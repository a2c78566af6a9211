"""`align gate`: rules about the numbers of an evaluation, each of which passes or fails. Pure, but for reading files.

A rule is `MODEL.QUANTITY[.PART] OPERATOR NUMBER [by JUDGE]`, as `dpo.win_rate.low > 0.5` or `dpo.kl < 30`; the judge is
the one that decides the verdict where the rule names none. docs/evaluation.md has the quantities. What was not measured
can not pass, nor a win rate of so few prompts that the report itself says nothing of it.
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

from align.report.verdict import too_few
from align.report.worse import LEAST_PROMPTS
from preferences.errors import BadInput
from preferences.files import read_json, sha256_file
from preferences.terminal import on_one_line

_RULE = re.compile(r"(?P<what>[^<>=]+?)\s*(?P<operator><=|>=|<|>)\s*(?P<number>[^\s<>=]+)(?:\s+by\s+(?P<judge>.+))?")
_HOLDS = {
    "<": lambda value, number: value < number,
    "<=": lambda value, number: value <= number,
    ">": lambda value, number: value > number,
    ">=": lambda value, number: value >= number,
}
_PAIR = ("win_rate", "length_controlled_win_rate", "anytime", "n", "ties", "p_value")
_MEANS = ("length", "tokens", "finished", "kl", "truth")
_OTHERS = ("slices", "slice", "challenge", "score", "worse", "gap", "harness")


class Rule(NamedTuple):
    """A rule as it was written, and its parts. `judge` is None where it names none."""

    text: str
    what: str
    operator: str
    number: float
    judge: str | None


class Result(NamedTuple):
    """How a rule went. `value` is None where nothing was measured; `words` say of what it is, or why there is none."""

    rule: Rule
    passed: bool
    value: float | None
    words: str

    def facts(self) -> dict[str, Any]:
        return {
            "rule": self.rule.text,
            "passed": self.passed,
            "value": self.value,
            "threshold": self.rule.number,
            "words": self.words,
        }


class NotMeasured(Exception):
    """Why there is no number for a rule, in a sentence without its full stop."""


def read_rules(rules: Iterable[str], files: Iterable[str]) -> list[Rule]:
    """The rules given one by one, then those of files: one a line; blank lines and what follows a # are skipped.

    Raises BadInput for what is no rule, or where there is none.
    """
    found = [parse_rule(text, "--rule") for text in rules]
    for file in files:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise BadInput(f"--rules: cannot read {file}: {reason}") from None
        for number, line in enumerate(lines, start=1):
            text = line.partition("#")[0].strip()
            if text:
                found.append(parse_rule(text, f"{file}, line {number}"))
    if not found:
        raise BadInput("no rule; give one, as in --rule 'dpo.win_rate.low > 0.5', or a file of them by --rules FILE")
    return found


def parse_rule(text: str, where: str) -> Rule:
    """Raises BadInput that opens with `where`."""
    match = _RULE.fullmatch(text.strip())
    parts = match["what"].strip().split(".") if match else []
    if match is None or len(parts) < 2 or not all(parts):
        raise BadInput(
            f"{where}: {text!r} is not a rule; write MODEL.QUANTITY, <, <=, > or >=, and a number,"
            " as in dpo.win_rate.low > 0.5"
        )
    try:
        number = float(match["number"])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadInput(f"{where}: {match['number']!r} is not a number; write a rate as 0.5, not as 50%")
    return Rule(text.strip(), match["what"].strip(), match["operator"], number, match["judge"])


def read_metrics(report: str | Path) -> dict[str, Any]:
    """The metrics.json of an evaluation: its folder, or the file itself. Raises BadInput."""
    path = Path(report)
    folder = path.parent if path.name == "metrics.json" else path
    if folder.is_dir():
        path = folder / "metrics.json"
        manifest = read_json(folder / "manifest.json") if (folder / "manifest.json").is_file() else {}
        verb = manifest.get("verb", "evaluate")
        if verb != "evaluate":
            raise BadInput(f"{report}: a run of `align {on_one_line(str(verb))}`; name the folder of an evaluation")
        status = manifest.get("status", "finished")
        if status != "finished":
            raise BadInput(f"{report}: an evaluation that is not finished ({status}); go on with it by --resume")
        hashes = manifest.get("results_sha256")
        written = hashes.get("metrics.json") if isinstance(hashes, dict) else None
        if written is not None and path.is_file() and sha256_file(path) != written:
            raise BadInput(f"{path}: is not what the evaluation wrote; evaluate again, and check that")
    metrics = read_json(path)
    base = metrics.get("base")
    if metrics.get("format") != 1 or not isinstance(metrics.get("models"), dict) or not isinstance(base, str):
        raise BadInput(f"{path}: not what `align evaluate` writes; name an evaluation's folder, or its metrics.json")
    return metrics


def check(metrics: Mapping[str, Any], rules: Iterable[Rule]) -> list[Result]:
    """How each rule goes."""
    return [_check(metrics, rule) for rule in rules]


def _check(metrics: Mapping[str, Any], rule: Rule) -> Result:
    try:
        value, words = measured(metrics, rule.what, rule.judge)
    except NotMeasured as error:
        return Result(rule, False, None, f"{error}.")
    except (AttributeError, KeyError, TypeError, ValueError):  # a number where a table should be, say
        return Result(rule, False, None, "what metrics.json has there is damaged; evaluate again.")
    return Result(rule, _HOLDS[rule.operator](value, rule.number), value, words)


def measured(metrics: Mapping[str, Any], what: str, judge: str | None = None) -> tuple[float, str]:
    """The number that `what` (MODEL.QUANTITY[.PART]) names, and a few words on where it is from. Raises NotMeasured."""
    models: Mapping[str, Any] = metrics["models"]
    name, rest = _named(models, what)
    if name is None:
        raise NotMeasured(f"the report has no model that {what!r} could begin with; it has {', '.join(models)}")
    facts = models[name]
    head, _, tail = rest.partition(".")
    if head == "slices":
        return _worst_slice(metrics, name, facts, tail, judge)
    if head == "slice":
        tags = facts.get("tags") or {}
        tag, tail = _named(tags, tail)
        if tag is None:
            raise NotMeasured(f"{rest!r} names no slice of the report; it has {', '.join(tags) or 'none'}")
        by, pair = _pair(metrics, name, tags[tag], judge)
        return _of_pair(pair, "win_rate", tail), f"slice {tag}, by {by}, {_prompts(pair)}"
    if head == "challenge":
        sets = metrics.get("challenge_sets") or {}
        which, tail = _named(sets, tail)
        if which is None:
            raise NotMeasured(f"{rest!r} names no challenge set of the report; it has {', '.join(sets) or 'none'}")
        inside = (sets[which].get("models") or {}).get(name)
        if inside is None:
            raise NotMeasured(f"{name} was not measured on the challenge set {which}")
        base = (sets[which].get("models") or {}).get(metrics["base"]) or {}
        value, words = _plain(metrics, name, inside, base, tail, judge)
        return value, f"challenge set {which}, {words}" if words else f"challenge set {which}"
    if rest == "worse":
        return _worse(metrics, name)
    if head == "gap":
        return _gap(metrics, name, judge)
    if head == "harness":
        return _harness(metrics, name, tail)
    return _plain(metrics, name, facts, models.get(metrics["base"]) or {}, rest, judge)


# --- the quantities ---------------------------------------------------------------------------------------------


def _plain(
    metrics: Mapping[str, Any],
    name: str,
    facts: Mapping[str, Any],
    base: Mapping[str, Any],
    what: str,
    judge: str | None,
) -> tuple[float, str]:
    """A quantity of a model on the prompts that `facts` is about."""
    head, _, part = what.partition(".")
    if head in _PAIR:
        by, pair = _pair(metrics, name, facts.get("judges") or {}, judge)
        return _of_pair(pair, head, part), f"by {by}, {_prompts(pair)}"
    if head == "score":
        by = judge or verdict_by(metrics)
        return _of_mean((facts.get("scores") or {}).get(by), part, f"the score of {name} by {by}"), f"by {by}"
    if head == "length" and part == "ratio":
        mine, other = (_of_mean(one.get("length"), "", "length") for one in (facts, base))
        return _finite(mine / other if other else None, f"the length of {name} beside the base's"), "to the base"
    measures = facts.get("measures") or {}
    measure, rest = _named(measures, what)
    if measure is None and head in _MEANS:
        return _of_mean(facts.get(head), part, f"{head} of {name}"), ""
    if measure is None:
        known = [*_PAIR, *_MEANS, *_OTHERS, *measures]
        near = difflib.get_close_matches(head, known, n=1)
        hint = f"; the nearest quantity is {near[0]!r}" if near else ""
        raise NotMeasured(f"{what!r} was not measured of {name}{hint}")
    about = f"{measure} of {name}"
    if rest.split(".")[0] == "difference":
        return _of_mean(measures[measure].get("difference"), rest[11:], f"the difference in {about}"), "to the base"
    return _of_mean(measures[measure], rest, about), ""


def verdict_by(metrics: Mapping[str, Any]) -> str:
    """The judge that decides the verdict. Raises NotMeasured."""
    judges = list(metrics.get("judges") or {})
    by = metrics.get("verdict_by") or (judges[0] if len(judges) == 1 else None)
    if by is None:
        raise NotMeasured(f"the report names no judge that decides; end the rule with `by` and one of {judges}")
    return str(by)


def _pair(metrics: Mapping[str, Any], name: str, judges: Mapping[str, Any], judge: str | None) -> tuple[str, Any]:
    by = judge or verdict_by(metrics)
    pair = judges.get(by)
    if pair is None:
        if name == metrics["base"]:
            raise NotMeasured(f"{name} is the base, which is compared with nothing")
        raise NotMeasured(f"{by} has not judged {name} there; who has: {', '.join(judges) or 'nobody'}")
    return by, pair


def _of_pair(pair: Mapping[str, Any], what: str, part: str) -> float:
    """One number of a comparison with the base; all but counts want as many prompts as the report's verdict."""
    about = f"{what} of {pair['candidate']}" if "candidate" in pair else what
    if what not in ("n", "ties") and too_few(pair):
        raise NotMeasured(
            f"{_prompts(pair)} are too few to say anything about {about}, in the report as here; judge at least"
            f" {LEAST_PROMPTS}"
            if pair["n"] < LEAST_PROMPTS
            else f"{_prompts(pair)} are too few to show any difference in {about}; judge more"
        )
    return _number_of(pair, what, part, about)


def _number_of(pair: Mapping[str, Any], what: str, part: str, about: str) -> float:
    if what == "anytime":
        if part not in ("low", "high"):
            raise NotMeasured("anytime is an interval; write anytime.low or anytime.high")
        return _end(pair.get("anytime_interval"), part, about)
    if not part:
        return _finite(pair.get(what), about)
    if what == "win_rate":
        return _end(pair.get("interval"), part, about)
    if what == "length_controlled_win_rate":
        error = pair.get("length_controlled_standard_error")
        mean = _finite(pair.get(what), about)
        reach = NormalDist().inv_cdf(0.5 + pair.get("level", 0.95) / 2) * _finite(error, f"the error of {about}")
        return _end([mean - reach, mean + reach], part, about)
    raise NotMeasured(f"{what} has no part {part!r}")


def _of_mean(mean: Any, part: str, about: str) -> float:
    """A mean or an end of its interval; a plain number is a mean without one."""
    if isinstance(mean, int | float):
        mean = {"mean": mean}
    if not isinstance(mean, Mapping):
        raise NotMeasured(f"{about} was not measured")
    if not part:
        return _finite(mean.get("mean"), about)
    return _end(mean.get("interval"), part, about)


def _end(interval: Any, part: str, about: str) -> float:
    if part not in ("low", "high"):
        raise NotMeasured(f"{about} has no part {part!r}; there are low and high, the ends of its interval")
    if not isinstance(interval, list | tuple) or len(interval) != 2:
        raise NotMeasured(f"{about} has no interval")
    return _finite(interval[part == "high"], about)


def _finite(value: Any, about: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise NotMeasured(f"{about} was not measured")
    return float(value)


def _worst_slice(
    metrics: Mapping[str, Any], name: str, facts: Mapping[str, Any], part: str, judge: str | None
) -> tuple[float, str]:
    """The smallest of all slices: so that `slices.low > 0.4` says that none may be worse."""
    by = judge or verdict_by(metrics)
    tags = {tag: judges[by] for tag, judges in (facts.get("tags") or {}).items() if judges.get(by)}
    if not tags:
        raise NotMeasured(f"{by} has no slices of {name}; prompts with tags make them")
    if all(too_few(pair) for pair in tags.values()):
        raise NotMeasured(
            f"no slice of {name} has prompts enough to say anything; judge at least {LEAST_PROMPTS} of one"
        )
    # small ones count, too: a minimum over more of them is no easier to pass
    values = {tag: _number_of(pair, "win_rate", part, f"win_rate of {tag}") for tag, pair in tags.items()}
    worst = min(values, key=lambda tag: values[tag])
    return values[worst], f"slice {worst}, the lowest of {len(values)}, by {by}, {_prompts(tags[worst])}"


def _worse(metrics: Mapping[str, Any], name: str) -> tuple[float, str]:
    """How many things got worse, whatever they are; see align/report/worse.py."""
    if name == metrics["base"]:
        raise NotMeasured(f"{name} is the base, which is compared with nothing")
    if metrics.get("worse") is None:
        raise NotMeasured("the report has no list of what got worse; evaluate again")
    if metrics.get("prompts", LEAST_PROMPTS) < LEAST_PROMPTS:
        raise NotMeasured(
            f"{metrics['prompts']} prompts are too few to say of {name} that nothing got worse; judge at least"
            f" {LEAST_PROMPTS}"
        )
    mine = [f"{row['kind']} {row['name']}" for row in metrics["worse"]["worse"] if row["model"] == name]
    few = sum(row["model"] == name for row in metrics["worse"].get("too_few") or ())
    untold = f"; of {few} {'thing' if few == 1 else 'things'} too few prompts to tell" if few else ""
    return float(len(mine)), (", ".join(mine) or "nothing that was measured") + untold


def _gap(metrics: Mapping[str, Any], name: str, judge: str | None) -> tuple[float, str]:
    """The largest gap between a group (of prompts or raters) and the rest, whichever way."""
    by = judge or verdict_by(metrics)
    fairness = metrics.get("fairness") or {}
    gaps = [
        gap
        for kind in ("prompts", "raters")
        for gap in fairness.get(kind) or []
        if gap.get("model") == name and gap.get("judge") == by and gap.get("mean") is not None
    ]
    if not gaps:
        raise NotMeasured(f"no gap between groups was measured for {name} by {by}")
    worst = max(gaps, key=lambda gap: abs(gap["mean"]))
    return abs(_finite(worst["mean"], "the gap")), f"group {worst.get('group')}, the largest of {len(gaps)}, by {by}"


def _harness(metrics: Mapping[str, Any], name: str, what: str) -> tuple[float, str]:
    tasks = metrics.get("harness") or {}
    task, rest = _named(tasks, what)
    metric, rest = _named(tasks[task], rest) if task else (None, "")
    found = tasks[task][metric].get(name) if task and metric else None
    if found is None or rest:
        raise NotMeasured(f"no task of the harness gives {what!r} for {name}; there are {', '.join(tasks) or 'none'}")
    return _finite(found.get("value") if isinstance(found, Mapping) else found, what), f"{task}, {metric}"


def _named(known: Iterable[str], what: str) -> tuple[str | None, str]:
    """The longest known name that `what` begins with, up to a dot, and what follows it: names may have dots in them."""
    fits = [name for name in known if what == name or what.startswith(f"{name}.")]
    if not fits:
        return None, what
    name = max(fits, key=len)
    return name, what[len(name) + 1 :]


def _prompts(pair: Mapping[str, Any]) -> str:
    return "1 prompt" if pair.get("n") == 1 else f"{pair.get('n')} prompts"


def in_words(results: list[Result]) -> str:
    """The results for people: a line a rule, and how many pass."""
    wide = max(len(result.rule.text) for result in results)
    lines = [
        on_one_line(
            f"{'pass' if one.passed else 'FAIL'}  {one.rule.text:<{wide}}  "
            + (one.words if one.value is None else _number(one) + (f" ({one.words})" if one.words else ""))
        )
        for one in results
    ]
    passed = sum(one.passed for one in results)
    return "\n".join([*lines, f"{passed} of {len(results)} rules pass"])


def _number(result: Result) -> str:
    """Four digits, or all of them where four would look as if it were the rule's own number."""
    assert result.value is not None
    short = f"{result.value:.4g}"
    return short if float(short) != result.rule.number or result.value == result.rule.number else repr(result.value)
