"""Which prompts the report shows, and what one can filter them by. Pure functions on the lines of samples.jsonl.

A page with everything would be too large to open, so some prompts are left out, and the page says how many: the biggest
regressions are always kept, then some of every kind of prompt and of every outcome, then what comes first.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import escape

MOST_EXAMPLES = 240
MOST_BYTES = 6_000_000  # of their texts, as they stand in the page
MOST_CHARACTERS = 3_000  # of one text
MOST_TURNS = 12  # of a conversation, the last ones
REGRESSIONS, OTHER_REGRESSIONS = 10, 3  # of each model, by the judge that decides and by each other judge
EACH = 6  # of every kind and outcome, where there are so many
MOST_CHOICES = 12  # sets and tags to choose from
ON_PAPER = 8
WORDS = {"w": "win", "l": "loss", "t": "tie"}


def browser(
    samples: Sequence[Mapping[str, Any]], models: Sequence[str], base: str, judges: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What the page shows and lets its reader choose: {"examples", "models", "judges", "groups", "left_out", …}.

    `models` are those compared with `base`. Everything is named by its number, so that no text from outside becomes
    part of a selector.
    """
    if not samples:
        return None
    judged = [
        judge for judge in judges if any(preference(s, judge, m, base) is not None for s in samples for m in models)
    ]
    outcomes = [_outcomes(sample, models, judged, base) for sample in samples]
    worst = _regressions(samples, models, judged, base)
    for (model, judge), places in worst.items():
        for place in places:
            outcomes[place].append(f"r{model}-{judge}")
    groups = _groups(samples)
    kept = _kept(samples, outcomes, worst, groups)
    paper = _on_paper(worst, kept)
    examples = [
        _example(samples[place], models, base, judged, judges)
        | {
            "outcomes": " ".join(outcomes[place]),
            "groups": " ".join(f"g{number}" for number, (_, _, inside) in enumerate(groups) if place in inside),
            "paper": place in paper,
        }
        for place in kept
    ]
    return {
        "examples": examples,
        "models": list(models),
        "judges": [judges[judge]["words"] for judge in judged],
        "groups": [(kind, name) for kind, name, _ in groups],
        "sampled": len(samples),
        "left_out": len(samples) - len(kept),
        "on_paper": len(paper),
    }


def preference(sample: Mapping[str, Any], judge: str, model: str, base: str) -> float | None:
    """Whether the judge prefers the model's response to the base's: 1, 0, between; None where it did not judge."""
    given = ((sample.get("preferences") or {}).get(judge) or {}).get(model)
    if given is not None:
        return float(given)
    scores = (sample.get("scores") or {}).get(judge) or {}
    mine, other = scores.get(model), scores.get(base)
    if mine is None or other is None or model == base:
        return None
    return 0.5 + 0.5 * ((mine > other) - (mine < other))


def _letter(value: float) -> str:
    return "w" if value > 0.5 else "l" if value < 0.5 else "t"


def _outcomes(sample: Mapping[str, Any], models: Sequence[str], judges: Sequence[str], base: str) -> list[str]:
    """Tokens such as w0-1: model 0 wins by judge 1."""
    found = []
    for m, model in enumerate(models):
        for j, judge in enumerate(judges):
            value = preference(sample, judge, model, base)
            if value is not None:
                found.append(f"{_letter(value)}{m}-{j}")
    return found


def _regressions(
    samples: Sequence[Mapping[str, Any]], models: Sequence[str], judges: Sequence[str], base: str
) -> dict[tuple[int, int], list[int]]:
    """For each model and judge the prompts where the model falls furthest behind the base.

    By the difference of the judge's scores where it gives some, else by its preference; equal preferences by the scores
    of the first judge that gives some.
    """
    scoring = [judge for judge in judges if any((s.get("scores") or {}).get(judge) for s in samples)]
    found = {}
    for m, model in enumerate(models):
        for j, judge in enumerate(judges):
            ranked = []
            for place, sample in enumerate(samples):
                value = preference(sample, judge, model, base)
                if value is not None and value < 0.5:
                    by = [judge, *scoring] if judge not in scoring else [judge]
                    drops = [_drop(sample, each, model, base) for each in by]
                    ranked.append(([0.0 if drop is None else drop for drop in drops], value, place))
            if judge not in scoring:
                ranked.sort(key=lambda row: (row[1], row[0][1:], row[2]))
            else:
                ranked.sort(key=lambda row: (row[0], row[2]))
            most = REGRESSIONS if j == 0 else OTHER_REGRESSIONS
            found[m, j] = [place for *_, place in ranked[:most]]
    return found


def _drop(sample: Mapping[str, Any], judge: str, model: str, base: str) -> float | None:
    scores = (sample.get("scores") or {}).get(judge) or {}
    if scores.get(model) is None or scores.get(base) is None:
        return None
    return float(scores[model]) - float(scores[base])


def _groups(samples: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, set[int]]]:
    """("set" or "tag", name, places), the sets (where there are several) first, then the most frequent tags."""
    sets: dict[str, set[int]] = {}
    tags: dict[str, set[int]] = {}
    for place, sample in enumerate(samples):
        sets.setdefault(sample.get("set") or "", set()).add(place)
        for tag in sample.get("tags") or ():
            tags.setdefault(tag, set()).add(place)
    named = [("set", name, inside) for name, inside in sets.items()] if len(sets) > 1 else []
    frequent = sorted(tags.items(), key=lambda item: (-len(item[1]), item[0]))
    return [*named, *(("tag", tag, inside) for tag, inside in frequent)][:MOST_CHOICES]


def _kept(
    samples: Sequence[Mapping[str, Any]],
    outcomes: Sequence[Sequence[str]],
    worst: Mapping[tuple[int, int], Sequence[int]],
    groups: Sequence[tuple[str, str, set[int]]],
) -> list[int]:
    """The places of what is shown, in the order of the file."""
    kept = {place for places in worst.values() for place in places}
    size = sum(_size(samples[place]) for place in kept)
    cells: dict[str, list[int]] = {}
    for place, tokens in enumerate(outcomes):
        for token in tokens:
            cells.setdefault(token, []).append(place)
    some = [places for _, places in sorted(cells.items())] + [sorted(inside) for _, _, inside in groups]
    for place in _in_turn([places[:EACH] for places in some], range(len(samples))):
        if place in kept:
            continue
        size += _size(samples[place])
        if len(kept) >= MOST_EXAMPLES or size > MOST_BYTES:
            break
        kept.add(place)
    return sorted(kept)


def _in_turn(cells: Sequence[Sequence[int]], then: Iterable[int]) -> Iterable[int]:
    for number in range(EACH):
        for cell in cells:
            if number < len(cell):
                yield cell[number]
    yield from then


def _size(sample: Mapping[str, Any]) -> int:
    turns = [turn["content"] for turn in sample["prompt"][-MOST_TURNS:]]
    texts = [*turns, *sample["responses"].values()]
    return sum(len(str(escape(text[:MOST_CHARACTERS])).encode("utf-8", "replace")) for text in texts)


def _on_paper(worst: Mapping[tuple[int, int], Sequence[int]], kept: Sequence[int]) -> set[int]:
    """What is printed: each model's biggest regressions in turn, then what comes first."""
    by_decider = [places for (_, judge), places in worst.items() if judge == 0]
    paper: list[int] = []
    for place in _in_turn(by_decider, kept):
        if place not in paper and len(paper) < ON_PAPER:
            paper.append(place)
    return set(paper)


def _example(
    sample: Mapping[str, Any], models: Sequence[str], base: str, judged: Sequence[str], judges: Mapping[str, Any]
) -> dict[str, Any]:
    """One prompt with every model's response, and each judge's word on it."""
    responses = []
    for number, model in [(-1, base), *enumerate(models)]:
        if model not in sample["responses"]:
            continue
        labels = []
        for judge in judged:
            value = preference(sample, judge, model, base)
            score = ((sample.get("scores") or {}).get(judge) or {}).get(model)
            if value is not None or score is not None:
                result = WORDS[_letter(value)] if value is not None and model != base else None
                labels.append({"words": judges[judge]["words"], "score": score, "result": result})
        text, left = cut(sample["responses"][model])
        tokens = (sample.get("tokens") or {}).get(model)
        responses.append(
            {"model": model, "number": number, "text": text, "left": left, "labels": labels, "tokens": tokens}
        )
    turns = sample["prompt"][-MOST_TURNS:]
    shown = [{"role": turn["role"], "text": cut(turn["content"])} for turn in turns]
    return {
        "turns": shown,
        "turns_left_out": len(sample["prompt"]) - len(turns),
        "head": sample["prompt"][-1]["content"] if sample["prompt"] else "",
        "responses": responses,
        "tags": [*([sample["set"]] if sample.get("set") else []), *(sample.get("tags") or [])][:8],
    }


def cut(text: str) -> tuple[str, int]:
    """A text that is not too long for the page, and how many characters were left out."""
    return text[:MOST_CHARACTERS], max(0, len(text) - MOST_CHARACTERS)
