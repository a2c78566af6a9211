"""The pictures of a reward model's report as inline SVG: how far its probabilities hold, and where its scores lie."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from align.report.plots import number, ticks

SIZE, LEFT, BOTTOM, EDGE = 400, 46, 34, 20  # of the square picture, in SVG units
WIDE, HIGH = 880, 240  # of the histogram


def reliability(bins: Sequence[Mapping[str, Any]], label: str) -> Markup:
    """What the model says, from 50% to 100%, against what is seen: a dot a bin, the larger the more pairs it holds.

    The line is where a model stands whose every probability holds.
    """

    def x_at(value: float) -> float:
        return LEFT + (SIZE - LEFT - EDGE) * (value - 0.5) / 0.5

    floor = 0.5 if min(row["seen"] for row in bins) >= 0.5 else 0.0  # a model can be wrong more often than right

    def y_at(value: float) -> float:
        return SIZE - BOTTOM - (SIZE - BOTTOM - EDGE) * (value - floor) / (1 - floor)

    parts = []
    for tick in ticks(floor, 1.0, 5):
        y = y_at(tick)
        line = Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
        text = Markup('<text x="{}" y="{:.1f}" text-anchor="end">{:.0%}</text>')
        parts += [line.format(LEFT, SIZE - EDGE, y, y), text.format(LEFT - 7, y + 4, tick)]
    for tick in ticks(0.5, 1.0, 5):
        text = Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{:.0%}</text>')
        parts.append(text.format(x_at(tick), SIZE - BOTTOM + 18, tick))
    diagonal = Markup('<line class="ideal" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>')
    parts.append(diagonal.format(x_at(0.5), x_at(1.0), y_at(0.5), y_at(1.0)))
    path = " ".join(f"{x_at(row['said']):.1f},{y_at(row['seen']):.1f}" for row in bins)
    parts.append(Markup('<polyline points="{}"/>').format(path))
    most = max(row["n"] for row in bins)
    for row in bins:
        radius = 3 + 7 * (row["n"] / most) ** 0.5
        dot = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}"><title>{}</title></circle>')
        words = f"says {row['said']:.0%}, raters {row['seen']:.0%}, {row['n']} pairs"
        parts.append(dot.format(x_at(row["said"]), y_at(row["seen"]), radius, words))
    return Markup('<svg class="chart reliability" viewBox="0 0 {0} {0}" role="img" aria-label="{1}">{2}</svg>').format(
        SIZE, label, Markup("").join(parts)
    )


def histogram(edges: Sequence[float], better: Sequence[int], worse: Sequence[int], label: str) -> Markup | None:
    """Two outlines over one another: scores of the responses that raters preferred (filled), and of the others."""
    if not sum(better):
        return None
    low, high, most = edges[0], edges[-1], max(*better, *worse)

    def x_at(value: float) -> float:
        return 8 + (WIDE - 16) * (value - low) / (high - low)

    def y_at(count: float) -> float:
        return HIGH - 26 - (HIGH - 36) * count / most

    def outline(counts: Sequence[int]) -> str:
        points = [f"{x_at(low):.1f},{y_at(0):.1f}"]
        for number_, count in enumerate(counts):
            points += [f"{x_at(edges[number_ + end]):.1f},{y_at(count):.1f}" for end in (0, 1)]
        return " ".join([*points, f"{x_at(high):.1f},{y_at(0):.1f}"])

    parts = [
        Markup('<polygon class="better" points="{}"/>').format(outline(better)),
        Markup('<polyline class="worse" points="{}"/>').format(outline(worse)),
        Markup('<line class="floor" x1="0" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(WIDE, y_at(0), y_at(0)),
    ]
    for tick in ticks(low, high, 8):
        text = Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>')
        parts.append(text.format(x_at(tick), HIGH - 8, number(tick)))
    return Markup('<svg class="chart histogram" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDE, HIGH, label, Markup("").join(parts)
    )
