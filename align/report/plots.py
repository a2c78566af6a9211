"""The report's pictures as inline SVG, coloured by the page's own CSS, so that they follow light and dark.

Hand-made rather than drawn by matplotlib: percentages as coordinates keep text and marks their size at any width, and
CSS classes keep the colours in one place. Everything from outside passes through Markup.format, which escapes it.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup

SHAPES = {
    "circle": Markup('<circle r="6"/>'),
    "square": Markup('<rect x="-5.5" y="-5.5" width="11" height="11" rx="1"/>'),
    "diamond": Markup('<path d="M0-7.5 7.5 0 0 7.5-7.5 0Z"/>'),
    "triangle": Markup('<path d="M0-7 7 5.5-7 5.5Z"/>'),
    "cross": Markup('<path d="M-2.4-7H2.4V-2.4H7V2.4H2.4V7H-2.4V2.4H-7V-2.4H-2.4Z"/>'),
    "ring": Markup(
        '<path d="M0-6.5A6.5 6.5 0 1 0 0 6.5 6.5 6.5 0 1 0 0-6.5ZM0-2.5A2.5 2.5 0 1 1 0 2.5 2.5 2.5 0 1 1 0-2.5Z"/>'
    ),
}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 340, 190, 46, 10, 10, 26  # of a chart, in SVG units


def ticks(low: float, high: float, most: int = 4) -> list[float]:
    """At most `most` + 1 round numbers (1, 2 or 5 times a power of ten apart) within [low, high]; low < high."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [min(max(number * step, low), high) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Three significant digits, thousands with a comma, a true minus sign."""
    if abs(value) >= 1000:
        text = f"{value:,.0f}"
    elif abs(value) < 1e-12:
        text = "0"
    elif abs(value) < 1e-3:
        text = f"{value:.1e}"
    else:
        digits = 2 - math.floor(math.log10(abs(value)))
        text = f"{value:.{max(0, digits)}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", "−")


def signed_points(share: float) -> str:
    """A difference of shares in percentage points, with its sign: +6, −17, 0."""
    text = f"{100 * share:+.0f}".replace("-", "−")
    return "0" if text[1:] == "0" else text


def padded(low: float, high: float, share: float = 0.08) -> tuple[float, float]:
    """A range a little wider than [low, high], and never empty."""
    margin = (high - low) * share or abs(high) * share or 1.0
    return low - margin, high + margin


def track(
    value: float,
    interval: Sequence[float] | None,
    *,
    label: str,
    shape: str = "circle",
    span: tuple[float, float] = (0.0, 1.0),
    line: float | None = 0.5,
    detectable: float | None = None,
) -> Markup:
    """One row of a forest plot: an estimate with its interval on the range `span`, `label` for screen readers.

    `line` is the value that means "no difference", `detectable` the smallest effect that the sample could show.
    """

    def at(x: float) -> str:
        return f"{100 * (min(max(x, span[0]), span[1]) - span[0]) / (span[1] - span[0]):.2f}%"

    parts = [Markup('<line class="rail" x1="0" x2="100%" y1="17" y2="17"/>')]
    if line is not None:
        parts.append(Markup('<line class="zero" x1="{0}" x2="{0}" y1="0" y2="100%"/>').format(at(line)))
    if detectable is not None:
        parts.append(Markup('<line class="detectable" x1="{0}" x2="{0}" y1="4" y2="30"/>').format(at(detectable)))
    if interval is not None:
        low, high = at(interval[0]), at(interval[1])
        parts.append(Markup('<line class="interval" x1="{}" x2="{}" y1="17" y2="17"/>').format(low, high))
        for end in (low, high):
            parts.append(Markup('<line class="cap" x1="{0}" x2="{0}" y1="11" y2="23"/>').format(end))
    parts.append(Markup('<svg class="point" x="{}" y="17">{}</svg>').format(at(value), SHAPES[shape]))
    return Markup('<svg class="track {}" height="34" role="img" aria-label="{}">{}</svg>').format(
        shape, label, Markup("").join(parts)
    )


def axis(span: tuple[float, float] = (0.0, 1.0), percent: bool = True, points: bool = False) -> Markup:
    """The numbers under a forest plot: per cent, plain numbers, or shares as percentage points with their sign."""
    parts = []
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] if percent else ticks(*span):
        place = 100 * (tick - span[0]) / (span[1] - span[0])
        anchor = "start" if place < 4 else "end" if place > 96 else "middle"
        text = f"{tick:.0%}" if percent else signed_points(tick) if points else number(tick)
        parts.append(Markup('<text x="{:.2f}%" y="14" text-anchor="{}">{}</text>').format(place, anchor, text))
    return Markup('<svg class="axis" height="20" aria-hidden="true">{}</svg>').format(Markup("").join(parts))


def key(shape: str) -> Markup:
    """A judge's mark, for a legend."""
    return Markup(
        '<svg class="key {}" width="18" height="18" aria-hidden="true"><svg class="point" x="9" y="9">{}</svg></svg>'
    ).format(shape, SHAPES[shape])


def _finite(xs: Sequence[float | None], ys: Sequence[float | None]) -> list[tuple[float, float]]:
    pairs = zip(xs, ys, strict=False)
    return [(x, y) for x, y in pairs if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)]


def _chart(points: list[tuple[float, float]], label: str, body: str) -> Markup | None:
    """Axes around points drawn as a `curve` or as `dots`; None without points."""
    if not points:
        return None
    xs, ys = zip(*points, strict=True)
    x_span = padded(min(xs), max(xs), 0.02)
    y_span = padded(min(ys), max(ys))

    def x_at(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (x - x_span[0]) / (x_span[1] - x_span[0])

    def y_at(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - y_span[0]) / (y_span[1] - y_span[0])

    parts = []
    for tick in ticks(*y_span):
        y = y_at(tick)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH - RIGHT, y, y)
        )
        parts.append(
            Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(LEFT - 7, y + 4, number(tick))
        )
    for tick in ticks(*x_span):
        parts.append(
            Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                x_at(tick), HEIGHT - 8, number(tick)
            )
        )
    if body == "dots":
        parts += [Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3"/>').format(x_at(x), y_at(y)) for x, y in points]
    elif len(points) == 1:
        parts.append(Markup('<circle class="end" cx="{:.1f}" cy="{:.1f}" r="3.5"/>').format(x_at(xs[0]), y_at(ys[0])))
    else:
        path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in points)
        parts.append(Markup('<polyline points="{}"/>').format(path))
    return Markup('<svg class="chart {}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        body, WIDTH, HEIGHT, label, Markup("").join(parts)
    )


def curve(xs: Sequence[float | None], ys: Sequence[float | None], label: str) -> Markup | None:
    """A line through (x, y); points that are missing or not finite are left out, long curves thinned to 400 points."""
    points = _finite(xs, ys)
    stride = -(-len(points) // 400) or 1
    return _chart(points[::stride], label, "curve")


def scatter(points: Sequence[Sequence[float | None]], label: str) -> Markup | None:
    """Dots at (x, y), at most 1000 of them, evenly taken."""
    kept = _finite([point[0] for point in points], [point[1] for point in points])
    return _chart(kept[:: -(-len(kept) // 1000) or 1], label, "dots")
