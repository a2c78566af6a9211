"""Elo ratings of the same verdicts in another order are other ratings. Bradley-Terry strengths are not.

    python benchmarks/elo.py [--orders 1000]

Made-up verdicts of which the truth is known: six models whose strengths are spaced evenly, every pair on each of 100
prompts. The verdicts are shuffled; Elo (K = 32 and K = 4, start 1000, as Chatbot Arena did until December 2023) and
Bradley-Terry go over each order. Elo forgets: a verdict weighs less with each that follows, so who played lately counts
most. Elo is not in the package; this is why.
"""

import argparse

import numpy as np

from preferences.stats.bradley_terry import fit_strengths

MODELS = np.array(["A", "B", "C", "D", "E", "F"])
TRUE = np.linspace(0.375, -0.375, 6)  # neighbours 0.15 log-odds apart: the better wins 53.7%
POINTS = 400 / np.log(10)  # Elo points of one log-odds


def elo(first: np.ndarray, second: np.ndarray, won: np.ndarray, step: float) -> np.ndarray:
    """Ratings (orders, models) after verdicts (orders, n) in their order; all orders at once."""
    ratings = np.full((len(won), len(MODELS)), 1000.0)
    rows = np.arange(len(won))
    for one, other, result in zip(first.T, second.T, won.T, strict=True):
        expected = 1 / (1 + 10 ** ((ratings[rows, other] - ratings[rows, one]) / 400))
        change = step * (result - expected)
        ratings[rows, one] += change
        ratings[rows, other] -= change
    return ratings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=1000)
    orders = parser.parse_args().orders
    rng = np.random.default_rng(0)
    one, other = (np.tile(side, 100) for side in np.triu_indices(6, 1))
    prompts = np.repeat(np.arange(100), 15)
    won = (rng.random(len(one)) < 1 / (1 + np.exp(TRUE[other] - TRUE[one]))).astype(float)
    order = rng.permuted(np.tile(np.arange(len(one)), (orders, 1)), axis=1)

    def bradley_terry(at: np.ndarray) -> np.ndarray:
        found = fit_strengths(prompts[at], MODELS[one[at]].tolist(), MODELS[other[at]].tolist(), won[at])
        return 1000 + POINTS * np.array([found[model]["strength"] for model in MODELS])

    fits = {
        "Elo, K = 32": elo(one[order], other[order], won[order], 32),
        "Elo, K = 4": elo(one[order], other[order], won[order], 4),
        "Bradley-Terry": np.array([bradley_terry(at) for at in order]),
    }
    found = fit_strengths(prompts, MODELS[one].tolist(), MODELS[other].tolist(), won)
    print(f"# Elo and Bradley-Terry on the same {len(one):,} verdicts in {orders:,} orders\n")
    print(f"`python benchmarks/elo.py --orders {orders}`. Points: 400 to a factor of ten in odds, 1000 on average.\n")
    print("| model | true | Bradley-Terry, 95% interval | Elo, K = 32, over the orders | Elo, K = 4, over the orders |")
    print("|---|---|---|---|---|")
    for place, model in enumerate(MODELS):
        fields = found[model]
        low, high = (1000 + POINTS * end for end in fields["interval"])
        spans = [f"{fits[name][:, place].min():.0f} to {fits[name][:, place].max():.0f}" for name in list(fits)[:2]]
        true, fitted = 1000 + POINTS * TRUE[place], 1000 + POINTS * fields["strength"]
        print(f"| {model} | {true:.0f} | {fitted:.0f}, {low:.0f} to {high:.0f} | {spans[0]} | {spans[1]} |")
    print(
        "\n| | rankings that come out | which model is first, in how many orders | a rating's spread between orders |"
    )
    print("|---|---|---|---|")
    for name, ratings in fits.items():
        rankings = {tuple(row) for row in np.argsort(-ratings.round(6), axis=1, kind="stable").tolist()}
        first = np.bincount(ratings.round(6).argmax(axis=1), minlength=6) / orders
        share = ", ".join(f"{model} {part:.1%}" for model, part in zip(MODELS, first, strict=True) if part)
        print(f"| {name} | {len(rankings)} | {share} | {ratings.std(axis=0).mean():.1f} points |")


if __name__ == "__main__":
    main()
