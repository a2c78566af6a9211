"""The picture of a PPO run while it goes on: curves.png in the run folder, drawn anew from metrics.jsonl's rows.

Colours are those of the report (report/style.css.jinja). Drawn without pyplot, which keeps every figure for itself.
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE, INK, SOFT, LINE = "#fbfaf7", "#1c2228", "#5a646d", "#e2dfd8"
BLUE, ORANGE, GREEN = "#0067a5", "#b86e00", "#007a5a"  # colour-blind readers tell them apart
STYLE = {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.unicode_minus": True,
    "legend.facecolor": "white",
    "legend.edgecolor": "none",
    "legend.framealpha": 0.8,
    "legend.fontsize": 8,
    "lines.solid_capstyle": "round",
}
WIDTH, HEIGHT, DPI = 16.0, 8.0, 110  # inches, inches, pixels an inch
LEFT, RIGHT = 0.035, 0.985  # where panels begin and end, as shares of the width
SMOOTH_FROM = 20  # updates from which curves are smoothed, the single updates staying as a pale line
LOWEST_EXPLAINED = -1.0  # untrained value models start at any depth, which would flatten what comes later

Rows = Sequence[Mapping[str, float]]


def draw_ppo(rows: Rows, path: Path, *, best_step: int | None = None, kl_budget: float | None = None) -> None:
    """Write the PNG at `path`, whole or not at all; nothing when there are no rows.

    rows: as in metrics.jsonl, an evaluation in its update's row or in one of its own; keys that rows lack leave
    their curve out. best_step: the `step` of the evaluation whose policy is the best, which every panel marks.
    kl_budget: nats a response.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not rows:
        return
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor=PAGE)
        FigureCanvasAgg(figure)
        panels = figure.subplots(2, 4)
        figure.subplots_adjust(left=LEFT, right=RIGHT, top=0.86, bottom=0.075, wspace=0.2, hspace=0.46)
        (score, kl, against, length), (shares, entropy, value, clipped) = panels

        _panel(score, "Score", "mean a response; should rise, held-out as well")
        _draw(score, rows, {"objective/scores": ("training", BLUE), "eval/scores": ("held-out", ORANGE)})
        _panel(kl, "KL to the reference", "nats a response; should level off")
        _draw(kl, rows, {"objective/kl": ("training", BLUE), "eval/kl": ("held-out", ORANGE)})
        _kl_extras(kl, rows, kl_budget)
        _panel(against, "Score against KL", "what the distance buys; should not bend down", "KL, nats a response")
        _score_against_kl(against, rows, best_step, kl_budget)
        _panel(length, "Response length", "tokens; should not run up by itself")
        _draw(length, rows, {"response/tokens": ("training", BLUE), "eval/tokens": ("held-out", ORANGE)})
        _panel(shares, "Endings and variety", "shares; neither should fall")
        _draw(
            shares,
            rows,
            {"response/ended": ("ended by itself", BLUE), "response/distinct_2": ("distinct bigrams", GREEN)},
        )
        shares.set_ylim(-0.03, 1.03)
        _panel(entropy, "Entropy", "nats a token; falls slowly, should not collapse")
        _draw(entropy, rows, {"policy/entropy_avg": ("training", BLUE)})
        entropy.set_ylim(bottom=0)
        _panel(value, "Value model", "explained variance; should rise from 0 towards 1")
        _draw(value, rows, {"val/explained_variance": ("training", BLUE)})
        _limit_explained(value)
        _panel(clipped, "Clipped tokens", "shares; above 0.3 the policy's steps are large")
        _draw(clipped, rows, {"policy/clipfrac_avg": ("policy", BLUE), "val/clipfrac_avg": ("value model", GREEN)})
        clipped.set_ylim(bottom=0)

        _head(figure, rows, best_step, kl_budget)
        _mark_best([panel for panel in panels.flat if panel is not against], rows, best_step)
        for panel in panels.flat:
            _legend(panel)
        _write(figure, path)


def _panel(axes: "Axes", title: str, reading: str, x_title: str = "update") -> None:
    """A panel's words: what it shows, in which unit, and how a good run looks."""
    axes.set_facecolor("white")
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=20)
    axes.text(0, 1.035, reading, transform=axes.transAxes, color=SOFT, fontsize=8.5, va="bottom")
    axes.set_xlabel(x_title, fontsize=8.5, labelpad=2)
    axes.tick_params(length=0)
    axes.margins(x=0.02)


def _head(figure: "Figure", rows: Rows, best_step: int | None, budget: float | None) -> None:
    """How far the run is, and what the lines across the panels mean."""
    done = f"up to update {rows[-1].get('step', len(rows)):,.0f}"
    if episodes := series(rows, "step", "episode")[1]:
        done += f", {episodes[-1]:,.0f} episodes"
    figure.text(LEFT, 0.965, f"PPO {done}", fontsize=13, fontweight="bold", color=INK, va="center")
    notes = [] if best_step is None else [f"dotted: the best policy on held-out prompts, update {best_step:.0f}"]
    notes += [] if budget is None else [f"dashed: KL budget, {budget:g} nats"]
    figure.text(RIGHT, 0.965, "   ·   ".join(notes), fontsize=9, color=SOFT, va="center", ha="right")


def _draw(axes: "Axes", rows: Rows, curves: Mapping[str, tuple[str, str]]) -> None:
    """A curve over updates for each key that the rows have; what is held out comes seldom, so it gets markers."""
    from matplotlib.ticker import MaxNLocator

    for key, (label, colour) in curves.items():
        steps, numbers = series(rows, "step", key)
        _line(axes, steps, numbers, label, colour, held_out=key.startswith("eval/"))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))


def _line(
    axes: "Axes", x: list[float], y: list[float], label: str, colour: str, *, held_out: bool = False, path: bool = False
) -> None:
    """One curve: few points as they are; of many the running mean, and the points themselves pale behind it.

    path: x is a measurement, too, so it is smoothed as y is, and pale points are not joined.
    """
    if not x:
        return
    strong: dict[str, Any] = {"color": colour, "label": label, "zorder": 3 if held_out else 2.5}
    if len(x) < SMOOTH_FROM:
        dots = held_out or path or len(x) == 1
        axes.plot(x, y, **strong, lw=1.2 if path else 1.8, marker="o" if dots else "", ms=4)
    else:
        pale: dict[str, Any] = {"ls": "", "marker": "o", "ms": 2.5, "mew": 0} if held_out or path else {"lw": 0.8}
        axes.plot(x, y, **pale, color=colour, alpha=0.28)
        axes.plot(smoothed(x) if path else x, smoothed(y), **strong, lw=1.8)


def _kl_extras(axes: "Axes", rows: Rows, budget: float | None) -> None:
    """The budget as a line; the coefficient on an axis of its own, on the right, if it changes at all."""
    axes.axhline(0, color=LINE, lw=1.2, zorder=1)
    if budget is not None:
        axes.axhline(budget, color=INK, lw=1.2, ls="--", label=f"budget {budget:g}")
    steps, coefficients = series(rows, "step", "objective/kl_coef")
    if not steps:
        return
    if max(coefficients) - min(coefficients) <= 1e-6 * max(coefficients):
        axes.plot([], [], " ", label=f"coefficient {coefficients[-1]:.3g}")
        return
    axes.plot([], [], color=GREEN, lw=1.4, ls=":", label="coefficient (right)")
    right = axes.twinx()
    right.plot(steps, coefficients, color=GREEN, lw=1.4, ls=":")
    right.grid(False)
    right.tick_params(length=0, labelcolor=GREEN)
    right.margins(y=0.25)


def _score_against_kl(axes: "Axes", rows: Rows, best_step: int | None, budget: float | None) -> None:
    """Where the policy went: the score over the distance that it cost (Gao et al., arXiv 2210.10760, figure 1)."""
    _line(axes, *series(rows, "objective/kl", "objective/scores"), "training", BLUE, path=True)
    _line(axes, *series(rows, "eval/kl", "eval/scores"), "held-out", ORANGE, held_out=True, path=True)
    if budget is not None:
        axes.axvline(budget, color=INK, lw=1.2, ls="--")
    best = [row for row in rows if row.get("step") == best_step]
    _diamond(axes, *series(best, "eval/kl", "eval/scores"))


def _limit_explained(axes: "Axes") -> None:
    low, high = axes.get_ylim()
    axes.axhline(0, color=SOFT, lw=1.0, zorder=1)
    axes.set_ylim(max(low, LOWEST_EXPLAINED), max(1.03, min(high, 1.1)))
    if low < LOWEST_EXPLAINED:
        axes.text(
            0.98, 0.03, "what is lower is not shown", transform=axes.transAxes, ha="right", color=SOFT, fontsize=8
        )


def _mark_best(panels: Sequence["Axes"], rows: Rows, best_step: int | None) -> None:
    """A thin line at the best evaluation in all panels over updates, a diamond in the first, the score."""
    if best_step is None:
        return
    for axes in panels:
        axes.axvline(best_step, color=INK, lw=0.9, ls=(0, (1, 2)), zorder=2)
    _diamond(panels[0], *series([row for row in rows if row.get("step") == best_step], "step", "eval/scores"))


def _diamond(axes: "Axes", x: Sequence[float], y: Sequence[float]) -> None:
    if x:
        label = "best held-out"
        axes.plot(x, y, "D", ms=8, mfc=ORANGE, mec=INK, mew=1.3, label=label, zorder=4, clip_on=False)


def _legend(axes: "Axes") -> None:
    """Where there are fewest curves; left out where one alone needs no name."""
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(loc="best", handlelength=1.6, borderpad=0.2, labelspacing=0.25)


def series(rows: Rows, x: str, y: str) -> tuple[list[float], list[float]]:
    """Two keys' numbers over the rows where both are there and finite."""
    pairs = [(row.get(x), row.get(y)) for row in rows]
    kept = [(a, b) for a, b in pairs if a is not None and b is not None and math.isfinite(a) and math.isfinite(b)]
    return [a for a, _ in kept], [b for _, b in kept]


def smoothed(numbers: Sequence[float]) -> list[float]:
    """Means over a fifteenth of the numbers (at least 5) around each one, fewer towards the ends."""
    half = max(2, len(numbers) // 30)
    sums = [0.0]
    for number in numbers:
        sums.append(sums[-1] + number)
    ends = [(max(0, i - half), min(len(numbers), i + half + 1)) for i in range(len(numbers))]
    return [(sums[high] - sums[low]) / (high - low) for low, high in ends]


def _write(figure: "Figure", path: Path) -> None:
    """To a neighbour first, then renamed over `path`: whoever has the picture open never sees half of one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(temporary, format="png", facecolor=PAGE)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
