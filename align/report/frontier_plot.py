"""How far a run went, and what that was worth: a section of the report with a picture of √KL and reward.

Inline SVG with the page's own classes, so that it follows light and dark. A label stands only where it covers nothing.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from align.report.plots import number, padded, ticks
from align.report.words import measured
from preferences.stats.overoptimisation import curve

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 300, 40, 12, 26, 30  # in SVG units, a phone's pixels
LETTER, LINE = 6.4, 13  # of a label's text
REWARDS = {"gold": "gold, kept away from training", "reward": "the reward in training"}
KINDS = {
    "checkpoint": Markup('<circle r="4"/>'),
    "best of n": Markup('<rect x="-3.6" y="-3.6" width="7.2" height="7.2"/>'),
}


class Box(NamedTuple):
    """A rectangle that is taken."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


class Scale(NamedTuple):
    """From √KL and reward to the picture."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + (WIDTH - LEFT - RIGHT) * across, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * up


def frontier_section(frontier: Mapping[str, Any] | None) -> Markup | None:
    """What stands under the section's heading: the words, the picture, its key and its table; None without points.

    `frontier` is that part of metrics.json, see docs/evaluation.md.
    """
    if not frontier or not frontier.get("points"):
        return None
    words = Markup("<p>{}</p>").format(frontier["words"]) if frontier.get("words") else Markup("")
    return words + Markup('<div class="planes"><figure><figcaption>{}</figcaption>{}</figure>{}{}</div>').format(
        "Reward over the base's, in standard deviations of the base's own responses (upwards), against the distance"
        " from the base, √KL (to the right). Bars are 95% intervals.",
        plane(frontier),
        _key(frontier),
        _table(frontier),
    )


def plane(frontier: Mapping[str, Any]) -> Markup:
    """The picture: both rewards of all points with intervals, their curves, the peak, and labels of the checkpoints."""
    points, peak = frontier["points"], frontier.get("peak")
    scale = _scale(points)
    parts = [*_axes(scale)]
    if peak:
        parts += _peak(peak, scale)
    for reward in REWARDS:
        parts.append(Markup('<g class="{}">{}</g>').format(reward, Markup("").join(_series(frontier, reward, scale))))
    chosen = [point for point in points if point["label"] == frontier.get("recommended")]
    for point in chosen:
        x, y = scale.at(point["sqrt_kl"], point["gold"]["mean"])
        parts.append(Markup('<circle class="best" cx="{:.1f}" cy="{:.1f}" r="8"/>').format(x, y))
    parts += _labels(points, chosen, scale)
    return Markup('<svg class="chart plane" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, _said(frontier), Markup("").join(parts)
    )


def _scale(points: Sequence[Mapping[str, Any]]) -> Scale:
    ends = [0.0]
    for point in points:
        for reward in REWARDS:
            fields = point[reward]
            ends += [fields["mean"], *(fields.get("interval") or ())]
    far = max(point["sqrt_kl"] for point in points) or 1.0
    return Scale((0.0, 1.04 * far), padded(min(ends), max(ends), 0.06))


def _axes(scale: Scale) -> list[Markup]:
    parts = []
    for tick in ticks(*scale.y, 5):
        _, y = scale.at(0, tick)
        line = Markup('<line class="{}" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
        parts.append(line.format("base" if tick == 0 else "grid", LEFT, WIDTH - RIGHT, y, y))
        parts.append(_text(LEFT - 6, y + 4, number(tick), "end"))
    for tick in ticks(*scale.x, 5):
        x, _ = scale.at(tick, 0)
        parts.append(_text(x, HEIGHT - 10, number(tick), "middle"))
    return parts


def _peak(peak: Mapping[str, Any], scale: Scale) -> list[Markup]:
    """The distance after which the gold reward falls, with its interval as a band behind everything."""
    x, _ = scale.at(peak["sqrt_kl"], 0)
    parts = []
    if peak.get("interval"):
        (low, _), (high, _) = (scale.at(end, 0) for end in peak["interval"])
        band = Markup('<rect class="band" x="{:.1f}" width="{:.1f}" y="{}" height="{}"/>')
        parts.append(band.format(low, max(high - low, 1), TOP, HEIGHT - TOP - BOTTOM))
    line = Markup('<line class="peak" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>')
    parts.append(line.format(x, TOP - 4, HEIGHT - BOTTOM))
    words = "from here on the gold reward falls"
    half = LETTER * len(words) / 2
    parts.append(_text(min(max(x, half + 2), WIDTH - half - 2), TOP - 10, words, "middle"))
    return parts


def _series(frontier: Mapping[str, Any], reward: str, scale: Scale) -> list[Markup]:
    """The curves of one reward, and its points over them."""
    parts = []
    for form, kind in (("bon", "best of n"), ("rl", "checkpoint")):
        fitted = ((frontier.get("fits") or {}).get(form) or {}).get(reward)
        far = max((point["sqrt_kl"] for point in frontier["points"] if point["kind"] == kind), default=0.0)
        if fitted and far > 0:
            xs = [far * step / 60 for step in range(61)]
            ys = curve("bon" if form == "bon" else "rl", xs, fitted["alpha"], fitted["beta"]).tolist()
            inside = [(x, y) for x, y in zip(xs, ys, strict=True) if scale.y[0] <= y <= scale.y[1]]
            path = " ".join("{:.1f},{:.1f}".format(*scale.at(x, y)) for x, y in inside)
            parts.append(Markup('<polyline class="fit {}" points="{}"/>').format(form, path))
    for point in frontier["points"]:
        fields = point[reward]
        x, y = scale.at(point["sqrt_kl"], fields["mean"])
        if fields.get("interval"):
            low, high = (scale.at(0, end)[1] for end in fields["interval"])
            line = Markup('<line class="error" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>')
            parts.append(line.format(x, low, high))
        spot = Markup('<g class="spot" transform="translate({:.1f} {:.1f})">{}<title>{}</title></g>')
        mean, interval = measured(fields)
        words = f"{point['label']}, {REWARDS[reward]}: {mean}" + (f" ({interval})" if interval else "")
        parts.append(spot.format(x, y, KINDS[point["kind"]], words))
    return parts


def _labels(points: Sequence[Mapping[str, Any]], chosen: Sequence[Mapping[str, Any]], scale: Scale) -> list[Markup]:
    """Names at the gold points: first of the recommended one, then of the farthest; none where it would cover one."""
    taken = []
    for point in points:
        for reward in REWARDS:
            x, y = scale.at(point["sqrt_kl"], point[reward]["mean"])
            taken.append(Box(x - 5, y - 5, x + 5, y + 5))
            if point[reward].get("interval"):
                high, low = (scale.at(0, end)[1] for end in reversed(point[reward]["interval"]))
                taken.append(Box(x - 1, high, x + 1, low))
    parts = []
    for point in sorted(points, key=lambda point: (point not in chosen, -point["sqrt_kl"])):
        text = _short(point)
        x, y = scale.at(point["sqrt_kl"], point["gold"]["mean"])
        wide, gap = LETTER * len(text), 11 if point in chosen else 8
        places = [(x + gap, y - LINE / 2), (x - gap - wide, y - LINE / 2)]
        places += [(x + side * 6 - (wide if side < 0 else 0), y + up) for up in (6, -6 - LINE) for side in (1, -1)]
        places += [(x - wide / 2, y + shift) for shift in (gap, -gap - LINE, gap + 10, -gap - LINE - 10)]
        for left, top in places:
            box = Box(left, top, left + wide, top + LINE)
            inside = box.left > LEFT and box.right < WIDTH - 1 and box.top > TOP and box.bottom < HEIGHT - BOTTOM
            if inside and not any(box.meets(other) for other in taken):
                taken.append(box)
                parts.append(_text(left, top + LINE - 3, text, "start", "named" if point in chosen else ""))
                break
    return parts


def _short(point: Mapping[str, Any]) -> str:
    """What stands beside a point: n of best of n, the step of a checkpoint."""
    if point["kind"] == "best of n":
        return f"n={point['n']}"
    return "final" if point.get("step") is None else str(point["step"])


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> Markup:
    found = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}"{}>{}</text>')
    return found.format(x, y, anchor, Markup(' class="{}"').format(kind) if kind else "", text)


def _said(frontier: Mapping[str, Any]) -> str:
    """The picture for those who don't see it."""
    far = max(frontier["points"], key=lambda point: float(point["sqrt_kl"]))
    return (
        f"{len(frontier['points'])} points up to √KL {number(far['sqrt_kl'])}. At the farthest, {far['label']}, the"
        f" reward in training is {number(far['reward']['mean'])} and the gold one {number(far['gold']['mean'])}."
    )


def _key(frontier: Mapping[str, Any]) -> Markup:
    kinds = [kind for kind in KINDS if any(point["kind"] == kind for point in frontier["points"])]
    names = {"checkpoint": "a checkpoint, curve d(α − β log d)", "best of n": "best of n of the base, curve d(α − βd)"}
    mark = Markup(
        '<span class="{}"><svg width="14" height="14" aria-hidden="true"><g class="spot" transform="translate(7 7)">{}'
        "</g></svg> {}</span> "
    )
    parts = [mark.format(reward, KINDS["checkpoint"], words) for reward, words in REWARDS.items()]
    parts += [mark.format("either", KINDS[kind], names[kind]) for kind in kinds]
    if any(point["label"] == frontier.get("recommended") for point in frontier["points"]):
        ring = '<circle class="best" cx="9" cy="9" r="7"/></svg> recommended</span>'
        parts.append(Markup('<span><svg width="18" height="18" aria-hidden="true">' + ring))
    return Markup('<p class="legend">{}</p>').format(Markup("").join(parts))


def _table(frontier: Mapping[str, Any]) -> Markup:
    rows = []
    for point in sorted(frontier["points"], key=lambda point: float(point["sqrt_kl"])):
        row = [point["label"], number(point["sqrt_kl"])]
        for reward in ("reward", "gold"):
            mean, interval = measured(point[reward])
            row.append(f"{mean} ({interval})" if interval else mean)
        cells = Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row)
        rows.append(Markup("<tr>{}</tr>").format(cells))
    for form, name in (("bon", "best of n, d(α − βd)"), ("rl", "checkpoints, d(α − β log d)")):
        fitted = (frontier.get("fits") or {}).get(form) or {}
        row = [_fitted(fitted.get(reward)) for reward in ("reward", "gold")]
        if any(row):
            cells = Markup("").join(Markup("<td>{}</td>").format(cell or "–") for cell in row)
            rows.append(Markup("<tr><td>{}</td><td></td>{}</tr>").format(name, cells))
    head = "<tr><th>Point</th><th>√KL</th><th>Reward in training</th><th>Gold</th></tr>"
    return Markup(
        '<details><summary>The numbers</summary><div class="scroll"><table><thead>{}</thead><tbody>{}</tbody></table>'
        "</div></details>"
    ).format(Markup(head), Markup("").join(rows))


def _fitted(found: Mapping[str, Any] | None) -> str:
    """α and β with their intervals."""
    if not found or not all(math.isfinite(found[name]) for name in ("alpha", "beta")):
        return ""
    said = []
    for name, letter in (("alpha", "α"), ("beta", "β")):
        mean, interval = measured({"mean": found[name], "interval": found.get(f"{name}_interval")})
        said.append(f"{letter} {mean}" + (f" ({interval})" if interval else ""))
    return ", ".join(said)
