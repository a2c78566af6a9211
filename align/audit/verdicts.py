"""What every check of an audit has: its limits, its verdict, the rows that it looks at, and how it says a number."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from align.audit.copies import Copies
from align.audit.rows import Part, Row
from align.audit.shares import Share
from align.audit.texts import masked

EXAMPLES = 5  # a check
FEW = 30  # cases, below which a share says too little to judge by
SAMPLE = 300  # rows, where looking at all of them takes minutes; a share is known to 6 points, a small one to 2
_EXCERPT = 240  # characters


class Limit(NamedTuple):
    """From which number on a check warns and stops; None: it never does. `why` is for the reader of the report."""

    warn: float | None
    stop: float | None
    why: str


LIMITS: dict[str, Limit] = {
    "leakage": Limit(
        1e-9, 0.01, "From one held-out row in a hundred on, learning it by heart can be mistaken for a better model."
    ),
    "degenerate": Limit(1e-9, 0.05, "Such a row has no gradient; one in twenty means that something was mixed up."),
    "empty": Limit(1e-9, 0.01, "One in a hundred is enough to teach a model to say nothing."),
    "contradictions": Limit(
        0.01, 0.2, "Raters differ now and then; a fifth of all rows both ways looks like labels mixed up."
    ),
    "lengths": Limit(0.05, 0.9, "What is too long is dropped or cut; where most of it is, other data is trained on."),
    "duplicates": Limit(0.01, None, "Copies weigh as often as they stand there."),
    "near_duplicates": Limit(0.05, None, "Near copies weigh double, too, but families of prompts are usual."),
    "cycles": Limit(0.1, None, "Coins would make a quarter of all triples cyclic."),
    "cut_off": Limit(0.1, None, "A model learns to stop within a sentence where one response in ten does."),
    "refusals": Limit(0.2, None, "Where a fifth of what is taught declines, it should be meant so."),
    "identity": Limit(0.001, None, 'A model learns to say who it is from whatever says "I am".'),
    "personal_data": Limit(
        0.001, None, "Models can repeat what they saw once (Carlini et al. 2021, arXiv 2012.07805)."
    ),
    "slurs": Limit(0.001, None, "What stands in chosen responses is taught."),
    "languages": Limit(0.05, None, "On English data the detector itself errs in about one text of a hundred."),
    "length_bias": Limit(
        0.15, None, "Beyond 65% (the nearer end of the interval) the cheapest thing to learn is length."
    ),
    "position_bias": Limit(
        0.05, None, "Beyond 55% (the nearer end of the interval) raters favour a place, not a response."
    ),
    "models": Limit(0.95, None, "Who wrote it then tells who wins, and a reward model learns to tell who wrote it."),
    "tags": Limit(1, None, "With 30 pairs an accuracy is known to about 18 points, and less is learnt from fewer."),
    "synthetic": Limit(None, None, ""),
}


@dataclass
class Check:
    """What one check found: its `number` (docs/audit.md says of what), and how many rows are behind it."""

    check: str
    title: str
    verdict: str
    number: float | None
    says: str
    do: str = ""
    count: int | None = None
    interval: list[float] | None = None
    limits: dict[str, float | None] = field(default_factory=dict)
    why: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Rows:
    """All rows in one order, those that train first, with what was found out about their texts."""

    parts: list[Part]
    kind: str
    rows: list[Row]
    copies: Copies
    hits: dict[tuple[str, str], list[int]]  # (finder, field) -> rows
    trains: int  # how many rows train: they stand first

    @cached_property
    def taught(self) -> list[int]:
        """The rows that train with a response to be like: all but the bad ones of unpaired data."""
        return [number for number, row in enumerate(self.rows[: self.trains]) if row.chosen is not None]

    def part_of(self, number: int) -> str:
        return self.parts[self.copies.places[number].part].name

    def at(self, number: int) -> str:
        place = self.copies.places[number]
        return self.parts[place.part].at(place.row)

    def example(self, numbers: Sequence[int], note: str = "", *, end: bool = False) -> dict[str, Any]:
        """Rows as an example: where they stand, and what the first says; `end`: how its response ends."""
        row = self.rows[numbers[0]]
        shown: dict[str, Any] = {"where": [self.at(number) for number in numbers]}
        for name in ("prompt", "chosen", "rejected"):
            text = getattr(row, name)
            if text is not None and (text or name != "prompt"):
                shown[name] = excerpt(text, end=end or name == "prompt")
        return shown | ({"note": note} if note else {})


def excerpt(text: str, *, end: bool = False, around: int | None = None) -> str:
    """At most a few lines of a text, masked: its beginning, its end, or what stands around a place in it."""
    shown = masked(text)
    start, stop = (len(shown) - _EXCERPT, len(shown)) if end else (0, _EXCERPT)
    if around is not None:
        place = len(masked(text[:around]))
        start, stop = place - 60, place + 100
    start, stop = max(0, start), min(len(shown), stop)
    return ("…" if start > 0 else "") + shown[start:stop].strip() + ("…" if stop < len(shown) else "")


def check(
    name: str, title: str, number: float | None, says: str, do: str = "", judged: float | None = None, **more: Any
) -> Check:
    """A check with its verdict: from `judged`, or else from the number; without a number it is skipped."""
    limit = LIMITS[name]
    value = number if judged is None else judged
    verdict = "ok"
    if number is None or value is None:
        verdict = "skipped"
    elif limit.stop is not None and value >= limit.stop:
        verdict = "stop"
    elif limit.warn is not None and value >= limit.warn:
        verdict = "warn"
    limits = {"warn": limit.warn, "stop": limit.stop}
    if verdict not in ("warn", "stop"):
        do = ""
    return Check(name, title, verdict, rounded(number), says, do, limits=limits, why=limit.why, **more)


def rounded(number: float | None) -> float | None:
    return None if number is None else round(float(number), 6)


def percent(value: float) -> str:
    """A share in words: two digits where it is small."""
    hundred = 100 * value
    return (
        f"{hundred:.0f}%"
        if hundred >= 10 or hundred == 0
        else f"{hundred:.1f}%"
        if hundred >= 0.1
        else f"{hundred:.2g}%"
    )


def shortened(name: str) -> str:
    """The name of a tag or a model, as long as a line has room for."""
    return name if len(name) <= 40 else name[:39] + "…"


def of(count: int, total: int, what: str) -> str:
    """`3 of 200 rows (1.5%)`."""
    return f"{count:,} of {total:,} {what} ({percent(count / max(total, 1))})"


def between(share: Share) -> str:
    low, high = share.interval or (0.0, 1.0)
    return f"95% interval {percent(low)} to {percent(high)}"


def some(rows: Iterable[Any], make: Callable[[Any], dict[str, Any]]) -> list[dict[str, Any]]:
    return [make(row) for row, _ in zip(rows, range(EXAMPLES), strict=False)]
