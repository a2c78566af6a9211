"""The verdict on a model in a sentence that its numbers carry, for a reader who is no statistician. Pure functions.

`fields` are those of a pair in metrics.json. Nothing here is an opinion: a win or a loss is an interval that excludes
50%, by the judge that decides; everything else can't be told, and then the sentence says what is missing.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from align.report.judges import names_of, say
from align.report.unseen import seen_note
from align.report.words import METHODS, UNSEEN, capital, joined, name_of, percent, quoted, spread
from align.report.worse import ALPHA, LEAST_PROMPTS

LENGTH_CHANGE = 0.05  # a change of the mean length that is named where no interval says whether it is one
MANY = 20  # times as many prompts are more than anybody will ask
SETS_NAMED = 4  # of the challenge sets, in the sentence


class Opinion(NamedTuple):
    """What one judge says of one model. `trained`: the model was trained to please this judge, or is picked by it."""

    judge: str
    about: Mapping[str, Any]  # a row of judges_of
    fields: Mapping[str, Any]
    trained: bool
    picks: bool = False

    @property
    def outcome(self) -> str:
        return "unclear" if too_few(self.fields) else outcome(self.fields)


class Verdict(NamedTuple):
    """The verdict on one model: `opinions` of all judges, who decides first; the first sentence in two parts."""

    model: str
    outcome: str  # win, loss, unclear, none, or hint: a win or loss by the judge that trained it
    lead: str
    rest: str
    notes: list[str]  # what else must be known at once
    opinions: list[Opinion]

    @property
    def sentence(self) -> str:
        return f"{self.lead}{self.rest}"


def outcome(fields: Mapping[str, Any]) -> str:
    """ "win" or "loss" where the interval of the win rate excludes 50%, else "unclear"."""
    low, high = fields.get("interval") or (0.0, 1.0)
    return "win" if low > 0.5 else "loss" if high < 0.5 else "unclear"


def too_few(fields: Mapping[str, Any]) -> bool:
    """Whether the prompts are so few that nothing is said of them, whatever they show: some could be anything."""
    few = fields.get("few", fields["n"] < LEAST_PROMPTS)
    return bool(few) or fields.get("smallest_detectable", 1) is None


def the_base(metrics: Mapping[str, Any]) -> str:
    base = metrics["base"]
    return "the base" if base == "base" else f"the base ({quoted(base)})"


def verdict(model: str, metrics: Mapping[str, Any], judges: Mapping[str, Any]) -> Verdict:
    """The verdict on `model`, by the first of `judges` that compared it with the base."""
    facts, base = metrics["models"][model], the_base(metrics)
    opinions = [
        Opinion(
            judge,
            about,
            facts["judges"][judge],
            model in [*about["trained"], *about["picked"]],
            model in about["picked"] and model not in about["trained"],
        )
        for judge, about in judges.items()
        if (facts.get("judges") or {}).get(judge)
    ]
    if not opinions:
        return Verdict(model, "none", f"No judge has compared {the_model(model)} with {base}.", "", [], [])
    first = opinions[0]
    result = first.outcome
    lead, numbers = _sentence(model, base, first, len(opinions))
    changes = [length_words(facts, metrics["models"].get(metrics["base"]) or {}), *_slices(model, metrics, first)]
    rest = numbers + "".join(f"; {change}" for change in changes if change) + "."
    decides = str(metrics.get("verdict_by"))
    notes = [
        _absent(judges[decides]) if decides in judges and decides != first.judge else "",
        _trained_note(first),
        few_raters(first.fields),
        seen_note(model, metrics),
        missing(first.fields) if result == "unclear" else "",
        others(opinions),
        equal_length(first.fields, result),
    ]
    kind = "hint" if first.trained and result != "unclear" else result
    return Verdict(model, kind, lead, rest, [note for note in notes if note], opinions)


def headline(verdicts: Sequence[Verdict], metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The page's first words, as (lead, rest): one model's whole sentence, or the lead and interval of each."""
    if not verdicts:
        return [(f"No model was compared with {the_base(metrics)}.", "")]
    if len(verdicts) == 1:
        return [(verdicts[0].lead, verdicts[0].rest)]
    lines = []
    for one in verdicts:
        known = one.opinions and not too_few(one.opinions[0].fields)
        interval = f", {interval_words(one.opinions[0].fields)}." if known else "." if one.opinions else ""
        lines.append((one.lead, interval))
    return lines


def the_model(model: str) -> str:
    """The DPO model for dpo; any other name in quotes."""
    return f"the {name_of(model)} model" if model.lower() in METHODS else quoted(model)


def interval_words(fields: Mapping[str, Any]) -> str:
    interval = fields.get("interval")
    return f"{fields.get('level', 0.95):.0%} interval {spread(interval)}" if interval else "no interval"


def _sentence(model: str, base: str, first: Opinion, judges: int) -> tuple[str, str]:
    """The verdict itself, and the numbers that carry it."""
    fields, subject = first.fields, the_model(model)
    rate, n, result = percent(fields["win_rate"]), fields["n"], first.outcome
    by = f"{judges} judges" if judges > 1 else f"judged by {first.about['who']}"
    numbers = f", {interval_words(fields)}, {prompts(n)}, {by}"
    if too_few(fields):
        few = prompts(n) if n < LEAST_PROMPTS or not about_raters(fields) else f"{fields['raters']} raters"
        lead = f"{capital(few)} {'is' if n == 1 else 'are'} too few to say anything about {subject}"
        return lead, f": it is preferred to {base} in {rate}{numbers}"
    if first.trained:
        judge = f"{first.about['words']} that {'picks its answers' if first.picks else 'it was trained to please'}"
        if result == "win":
            lead = (
                f"{capital(subject)} pleases {judge}, which is no evidence that people prefer it: it is preferred to "
                f"{base} there in {rate} of prompts"
            )
        elif result == "loss":
            lead = (
                f"{capital(subject)} does not even please {judge}, which prefers it to {base} in only {rate} of prompts"
            )
        else:
            lead = (
                f"It can't be told whether {subject} pleases even {judge}, which prefers it to {base} in {rate} of "
                "prompts"
            )
        return lead, numbers
    if result == "win":
        return f"{capital(subject)} is preferred to {base} in {rate} of prompts", numbers
    if result == "loss":
        return f"{capital(subject)} is worse than {base}: it is preferred in only {rate} of prompts", numbers
    lead = f"It can't be told whether {subject} is better than {base}: it is preferred in {rate} of prompts"
    return lead, numbers


def prompts(n: int) -> str:
    return "1 prompt" if n == 1 else f"{n:,} prompts"


def missing(fields: Mapping[str, Any]) -> str:
    """What an unclear verdict lacks: prompts, or a difference that is worth finding."""
    more = fields.get("more_prompts")
    if fields["n"] < LEAST_PROMPTS:
        least = max(LEAST_PROMPTS - fields["n"], more or 0)
        return (
            f"At least {least:,} more prompts are needed before anything is said, and hundreds for a small difference."
        )
    if more:
        return more_words(fields)
    smallest = fields.get("smallest_detectable")
    if smallest is None:
        return "So many prompts can show no difference reliably, however large: judge more before you decide."
    text = f"So many prompts show only a true rate of at least {percent(smallest)} reliably (4 times in 5)."
    return text + (" At an even rate no number of prompts would tell." if fields["win_rate"] == 0.5 else "")


def more_words(fields: Mapping[str, Any]) -> str:
    """What `more_prompts` says: a forecast, which is about raters, too, where the interval is."""
    more = fields["more_prompts"]
    if more > MANY * fields["n"]:
        return f"If there is a difference, it takes more than {MANY} times as many prompts to show it."
    people = ", and more raters in proportion," if about_raters(fields) else ""
    return f"With about {more:,} more prompts like these{people} it can probably be told, if the rate stays as it is."


def about_raters(fields: Mapping[str, Any]) -> bool:
    """Whether the interval is about other raters, too."""
    return fields.get("raters") is not None and str(fields.get("method")).startswith("over prompts and raters")


def few_raters(fields: Mapping[str, Any]) -> str:
    """What one or two raters can't say."""
    raters = fields.get("raters")
    if raters is None or raters > 2 or about_raters(fields):
        return ""
    who = "one person" if raters == 1 else "two people"
    return f"The interval is about the taste of {who}: what others would say is not known from it. Ask more people."


def ties_words(fields: Mapping[str, Any]) -> str:
    ties = fields.get("ties")
    if ties and ties == fields["n"] > 1:
        return f"All {prompts(ties)} are ties, which count half: on none of them was either answer preferred."
    how = "is a tie, which counts half" if ties == 1 else "are ties, which count half"
    return f"{ties:,} of the {prompts(fields['n'])} {how}." if ties else ""


def equal_length(fields: Mapping[str, Any], result: str) -> str:
    """The win rate with the judge's taste for length taken out, beside the plain one."""
    rate, error = fields.get("length_controlled_win_rate"), fields.get("length_controlled_standard_error")
    if rate is None:
        return ""
    if error is None or too_few(fields):
        return "These prompts can't tell what would be if both models' answers were equally long."
    text = f"If both models' answers were equally long it would be preferred in {percent(rate)}"
    low, high = max(0.0, rate - 1.96 * error), min(1.0, rate + 1.96 * error)
    text += f" ({spread([low, high])})"
    if result == "win" and low <= 0.5:
        return f"{text}: length may be all that it wins by."
    if result != "win" and low > 0.5:
        return f"{text}: its length hides that it is better."
    if result == "loss" and high >= 0.5:
        return f"{text}: length may be all that it loses by."
    return f"{text}: length does not explain it." if result != "unclear" else f"{text}."


def _trained_note(first: Opinion) -> str:
    """Praise by whom one was trained to please is none."""
    if first.trained:
        return (
            "What is trained or picked to please a judge pleases it, and may do so in ways that people dislike. Let "
            "people compare the models before you decide."
        )
    if first.about["kind"] == "reward model":
        return (
            "No person judged this. The judge is a reward model that was not kept away from training: a hint that it "
            "may be better, and a reason to let people compare."
        )
    if first.about["kind"] == "function":
        return "No person judged this. The judge is a rule: it knows what it was written for and nothing else."
    if first.about["kind"] == "language model":
        return "No person judged this. Whether the language model likes what your people like is not known from this."
    return ""


def _absent(judge: Mapping[str, Any]) -> str:
    return f"{capital(say(judge, 'was', 'were'))} to decide, and did not judge this model."


def others(opinions: Sequence[Opinion]) -> str:
    """In plain words, whether the other judges agree with the one that decides."""
    first, rest = opinions[0], opinions[1:]
    if not rest:
        return ""
    groups: dict[str, list[Opinion]] = {}
    for one in rest:
        groups.setdefault(
            "trained" if one.trained else "same" if one.outcome == first.outcome else one.outcome, []
        ).append(one)
    parts = []
    for key, one_verb, many_verb in (
        ("same", *(("can't tell either",) * 2 if first.outcome == "unclear" else ("agrees", "agree"))),
        ("win", "sees a win", "see a win"),
        ("loss", "sees a loss", "see a loss"),
        ("unclear", "can't tell", "can't tell"),
    ):
        if found := groups.get(key):
            many = len(found) > 1 or found[0].about["many"]
            names = joined([f"{one.about['words']} ({percent(one.fields['win_rate'])})" for one in found])
            parts.append(f"{names} {many_verb if many else one_verb}")
    against = groups.get({"win": "loss", "loss": "win"}.get(first.outcome, ""), [])
    opposed = [one for one in against if one.about["kind"] != "function"]
    text = f"{capital(say(first.about, 'decides', 'decide'))}" + (f"; {'; '.join(parts)}." if parts else ".")
    if opposed:
        text += " The judges contradict each other: read the examples where they differ before you decide."
    if found := groups.get("trained"):
        rates = joined([percent(one.fields["win_rate"]) for one in found])
        text += (
            f" It was trained or picked to please {names_of([one.about for one in found])}, so the {rates} there "
            f"{'is' if len(found) == 1 else 'are'} no evidence."
        )
    praise = [one for one in rest if one.about["kind"] == "reward model" and one.outcome == "win" and not one.trained]
    if praise and first.outcome != "win":
        text += " It may have learnt to please the reward model."
    return text


def length_words(facts: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """ "it is 18% longer", where a change was detected."""
    before, after = base.get("length"), facts.get("length")
    if not before or not after or before["mean"] <= 0:
        return ""
    change = after["mean"] / before["mean"] - 1
    difference = ((facts.get("measures") or {}).get("length") or {}).get("difference") or {}
    interval = difference.get("interval")
    if interval is not None and interval[0] <= 0 <= interval[1]:
        return "no change of length detected"
    if (interval is None and abs(change) < LENGTH_CHANGE) or f"{abs(change):.0%}" == "0%":
        return "it is about as long"
    return f"it is {abs(change):.0%} {'longer' if change > 0 else 'shorter'}"


def _slices(model: str, metrics: Mapping[str, Any], first: Opinion) -> list[str]:
    """What the judge that decides says of challenge sets, and the tags on which the model is worse."""
    found = []
    sets = list((metrics.get("challenge_sets") or {}).items())
    for name, about in sets[:SETS_NAMED]:
        fields = (((about.get("models") or {}).get(model) or {}).get("judges") or {}).get(first.judge)
        if fields:
            found.append(f"{UNSEEN.sub(' ', name)} set: {slice_words(fields)}")
    if len(sets) > SETS_NAMED:
        found.append(f"{len(sets) - SETS_NAMED} more challenge sets below")
    judged = {
        tag: fields[first.judge]
        for tag, fields in (metrics["models"][model].get("tags") or {}).items()
        if fields.get(first.judge)
    }
    worse = [tag for tag, fields in judged.items() if slice_outcome(fields) == "loss"]
    if worse:
        found.append(
            f"worse on {joined([quoted(tag) for tag in worse[:3]] + ([f'{len(worse) - 3} more'] if worse[3:] else []))}"
        )
    elif enough := [tag for tag, fields in judged.items() if not too_few(fields)]:
        found.append(f"on none of {len(enough)} kinds of prompts detectably worse" if len(enough) > 1 else "")
    return found


def slice_outcome(fields: Mapping[str, Any]) -> str:
    """A slice's outcome, by the p-value that is corrected for how many slices were looked at, where there is one.

    "maybe" where only that correction speaks against a change; "few" where the slice is too small to say anything.
    """
    result, adjusted = outcome(fields), fields.get("p_adjusted")
    if too_few(fields):
        return "few"
    return "maybe" if result != "unclear" and adjusted is not None and adjusted >= ALPHA else result


def slice_words(fields: Mapping[str, Any]) -> str:
    rate = percent(fields["win_rate"])
    return {
        "win": f"better ({rate})",
        "loss": f"worse ({rate})",
        "few": f"too few prompts to tell ({fields['n']})",
        "maybe": f"perhaps {'better' if fields['win_rate'] > 0.5 else 'worse'} ({rate})",
        "unclear": "no change detected",
    }[slice_outcome(fields)]
