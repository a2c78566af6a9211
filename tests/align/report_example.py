"""What an evaluation knows, for tests of its report and its cards: five models, four judges, every part there is.

The numbers are made up, and fit together as an evaluation's do: intervals are the normal ones about their rates.
"""

import math
from collections.abc import Sequence
from typing import Any


def pair(rate: float, n: int, model: str = "dpo", *, ties: int = 0, **more: Any) -> dict[str, Any]:
    """The fields of a pair of models, as `pair_fields` gives them."""
    error = 0.5 / math.sqrt(n)
    detectable = 0.5 + 2.8 * error
    return {
        "candidate": model,
        "baseline": "base",
        "n": n,
        "ties": ties,
        "win_rate": rate,
        "standard_error": error,
        "level": 0.95,
        "method": "bootstrap over prompts (BCa)",
        "interval": [max(0.0, rate - 1.96 * error), min(1.0, rate + 1.96 * error)],
        "smallest_detectable": detectable if detectable <= 1 else None,
        "length_controlled_win_rate": rate - 0.03,
        "length_controlled_standard_error": error,
        "p_value": math.erfc(abs(rate - 0.5) / error / math.sqrt(2)),
        "anytime_interval": [max(0.0, rate - 3 * error), min(1.0, rate + 3 * error)],
        "more_prompts": None,
        **more,
    }


def mean(value: float, half: float, n: int = 240) -> dict[str, Any]:
    return {"mean": value, "interval": [value - half, value + half], "n": n, "standard_error": half / 1.96}


def measure(
    value: float, half: float, words: str, better: str | None, unit: str, change: Sequence[float] | None = None
) -> dict[str, Any]:
    """A measure, with the mean and half the width of its difference to the base."""
    difference = None
    if change is not None:
        p = math.erfc(abs(change[0]) / change[1] * 1.96 / math.sqrt(2))
        difference = {**mean(*change), "p_value": p, "p_adjusted": min(1.0, 5 * p)}
    return {**mean(value, half), "difference": difference, "better": better, "unit": unit, "words": words}


def measures(length: float, refusals: float, repetition: float, distinct: float, surprise: float) -> dict[str, Any]:
    """The measures of a model beside a base that has 212, 0.04, 0.05, 0.41 and 18."""
    base = length == 212

    def change(value: float, before: float, half: float) -> tuple[float, float] | None:
        return None if base else (value - before, half)

    return {
        "length": measure(length, 6, "characters in a response", None, "characters", change(length, 212, 8)),
        "refusals": measure(refusals, 0.01, "responses that decline", "lower", "share", change(refusals, 0.04, 0.015)),
        "repetition": measure(
            repetition, 0.01, "runs of four words said before", "lower", "share", change(repetition, 0.05, 0.012)
        ),
        "distinct_1": measure(distinct, 0.01, "distinct words", "higher", "share", change(distinct, 0.41, 0.02)),
        "perplexity": measure(
            surprise, 0.3, "surprise at held-out text", "lower", "perplexity", change(surprise, 18, 0.5)
        ),
    }


MODELS = {  # name: rate by people, by the gold model, by the reward model, by length; measures; KL
    "sft": (0.52, 0.53, 0.55, 0.42, (196, 0.04, 0.05, 0.41, 17.2), 1.1),
    "dpo": (0.61, 0.63, 0.71, 0.38, (250, 0.04, 0.09, 0.40, 18.9), 6.2),
    "ppo": (0.43, 0.49, 0.78, 0.24, (331, 0.09, 0.19, 0.31, 22.0), 41.0),
    "best of 4": (0.58, 0.6, 0.7, 0.47, (214, 0.04, 0.05, 0.41, 18.0), 0.6),
}
JUDGES = ("people", "gold", "reward", "concise")
N = 240


def metrics() -> dict[str, Any]:
    """metrics.json of an evaluation with everything in it."""
    return {
        "format": 1,
        "title": "Is the new assistant better for our people?",
        "simulated": False,
        "base": "base",
        "prompts": N,
        "seconds": 1432.2,
        "verdict_by": "people",
        "sampling": {
            "settings": {"temperature": 0.7, "max_new_tokens": 256, "seed": 42},
            "differs": {"best of 4": {"best_of": 4}, "ppo": {"temperature": 1.0}},
        },
        "judges": {
            "reward": {"kind": "reward model", "source": "runs/reward", "gold": False, "bias": None}
            | {"trained": ["ppo"], "picks": ["best of 4"]},
            "gold": {"kind": "reward model", "source": "runs/gold", "gold": True, "bias": None},
            "concise": {"kind": "function", "source": "rewards.py:concise", "gold": False, "bias": None},
            "people": {"kind": "people", "source": "people.jsonl", "gold": False, "bias": None, "raters": 12},
            "llm": {
                "kind": "language model",
                "source": "Qwen/Qwen3-4B",
                "wrote": ["dpo"],
                "questions": 480,
                "unparsable": 3,
                "too_long": 1,
                "not_judged": 2,
                "gold": False,
                "bias": {
                    "position": {
                        "first_share": {"mean": 0.58, "interval": [0.53, 0.63], "n": 480},
                        "flips": {"mean": 0.22, "interval": [0.17, 0.28], "n": 240},
                    },
                    "length": {"longer_share": {"mean": 0.53, "interval": [0.46, 0.6], "n": 223}},
                },
            },
        },
        "models": {"base": base(), **{name: model(name) for name in MODELS}},
        "challenge_sets": {"safety": challenge_set(0.0, 60), "maths": challenge_set(-0.16, 90)},
        "fairness": {
            "prompts": [
                {"model": "dpo", "judge": "people", "group": "lang:de", "n": 60, "rest_n": 180, "mean": -0.17}
                | {"interval": [-0.29, -0.05], "p_value": 0.004, "p_adjusted": 0.02},
                {"model": "dpo", "judge": "people", "group": "lang:en", "n": 180, "rest_n": 60, "mean": 0.02}
                | {"interval": [-0.1, 0.14], "p_value": 0.7, "p_adjusted": 0.8},
            ],
            "raters": [
                {"model": "dpo", "judge": "people", "group": "age:60+", "n": 44, "rest_n": 196, "mean": 0.06}
                | {"interval": [-0.06, 0.18], "p_value": 0.3, "p_adjusted": 0.6},
            ],
        },
        "judge_agreement": [
            agreement("people", "llm", 0.71, 0.43, True),
            agreement("people", "gold", 0.68, 0.36, True),
            agreement("people", "reward", 0.57, 0.14, True),
            agreement("gold", "reward", 0.66, 0.32, False),
        ],
        "many_models": {"people": strengths(0.0), "reward": strengths(0.6)},
        "frontier": frontier(),
        "harness": {
            "arc_easy": {
                "acc_norm": {
                    "base": {"value": 0.541, "standard_error": 0.01, "better": "higher"},
                    "dpo": {"value": 0.533, "standard_error": 0.01, "better": "higher"},
                    "ppo": {"value": 0.462, "standard_error": 0.01, "better": "higher"},
                }
            }
        },
        "reward_model": {
            "source": "runs/reward",
            "test": accuracy(0.71, 359),
            "longer_wins": accuracy(0.61, 359),
            "difference": mean(0.1, 0.04, 359),
            "truth": None,
            "ranking": {"roc_auc": mean(0.77, 0.04, 359), "ndcg": mean(0.91, 0.02, 120), "mrr": mean(0.83, 0.04, 120)},
        },
        "curves": curves(),
        "held_out_looks": {},
        "provenance": {
            "model base": "HuggingFaceTB/SmolLM2-135M-Instruct",
            "model dpo": "runs/dpo",
            "data": "runs/preferences",
            "seed": "42",
            "runs/dpo sha256 of adapter_model.safetensors": "0170616e" * 8,
        },
    }


def base() -> dict[str, Any]:
    found = measures(212, 0.04, 0.05, 0.41, 18.0)
    return {
        "kind": "local",
        "source": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "judges": {},
        "scores": {"reward": mean(0.0, 0.1), "gold": mean(0.0, 0.1), "concise": mean(0.4, 0.03)},
        "kl": None,
        "length": mean(212, 6),
        "tokens": mean(47, 2),
        "finished": 0.81,
        "tags": {},
        "measures": found,
    }


def model(name: str) -> dict[str, Any]:
    people, gold, reward, concise, numbers, kl = MODELS[name]
    judges = {
        "people": pair(people, N, name, ties=31, raters=12),
        "gold": pair(gold, N, name),
        "reward": pair(reward, N, name),
        "concise": pair(concise, N, name, ties=12),
        "llm": pair(people + 0.01, N, name, ties=40),
    }
    if name == "sft":
        judges["people"]["more_prompts"] = 4660
    return {
        "kind": "best of n" if name == "best of 4" else "local",
        "source": f"runs/{name}",
        "judges": judges,
        "scores": {"reward": mean(0.4, 0.1), "gold": mean(0.2, 0.1), "concise": mean(0.4, 0.03)},
        "kl": {**mean(kl, kl / 10), **({"bound": True} if name == "best of 4" else {})},
        "length": mean(numbers[0], 6),
        "tokens": mean(numbers[0] / 4.5, 2),
        "finished": 0.79,
        "tags": corrected(
            {
                "lang:de": {"people": pair(people - 0.17, 60, name)},
                "lang:en": {"people": pair(people + 0.03, 180, name)},
                "medical": {"people": pair(people - 0.02, 40, name)},
                "legal": {"people": pair(0.5, 4, name)},
            }
        ),
        "measures": measures(*numbers),
    }


def corrected(tags: dict[str, Any]) -> dict[str, Any]:
    """The tags with p-values corrected as Bonferroni would."""
    for judges in tags.values():
        for fields in judges.values():
            fields["p_adjusted"] = min(1.0, len(tags) * fields["p_value"])
    return tags


def challenge_set(shift: float, n: int) -> dict[str, Any]:
    found: dict[str, Any] = {"base": {"judges": {}, "length": mean(180, 9, n), "finished": 0.9}}
    found["base"]["measures"] = base()["measures"]
    for name, (people, *_, numbers, _) in MODELS.items():
        rate = 0.5 + (people - 0.5) * 0.4 + shift
        found[name] = {
            "judges": {"people": pair(rate, n, name), "reward": pair(0.6, n, name)},
            "measures": measures(*numbers),
            "length": mean(190, 9, n),
            "finished": 0.9,
        }
    return {"prompts": n, "models": found}


def agreement(a: str, b: str, same: float, kappa: float, human: bool) -> dict[str, Any]:
    return {
        "a": a,
        "b": b,
        "n": 960,
        "same": mean(same, 0.03, 960),
        "kappa": kappa,
        "kappa_interval": [kappa - 0.06, kappa + 0.06],
        "human": human,
    }


def strengths(tilt: float) -> dict[str, Any]:
    order = {"base": -0.1, "sft": -0.02, "dpo": 0.3, "ppo": -0.35 + 2 * tilt, "best of 4": 0.17}
    return {
        name: {"strength": value, "interval": [value - 0.2, value + 0.2], "win_rate": 1 / (1 + math.exp(-value))}
        for name, value in order.items()
    }


def frontier() -> dict[str, Any]:
    def point(label: str, kind: str, number: int, kl: float, reward: float, gold: float) -> dict[str, Any]:
        size = {"n": number} if kind == "best of n" else {"step": number}
        where = {"label": label, "kind": kind, **size, "kl": mean(kl, kl / 20), "sqrt_kl": math.sqrt(kl)}
        return {**where, "reward": mean(reward, 0.1), "gold": mean(gold, 0.1)}

    points = [
        point(f"best of {n}", "best of n", n, math.log(n) - (n - 1) / n, 0.5 * math.log2(n), 0.4 * math.log2(n))
        for n in (2, 4, 8, 16)
    ]
    points += [
        point(f"step {step}", "checkpoint", step, kl, reward, gold)
        for step, kl, reward, gold in ((20, 4, 0.9, 0.7), (40, 12, 1.7, 1.0), (60, 24, 2.3, 0.8), (80, 40, 2.7, 0.4))
    ]
    return {
        "run": "runs/ppo",
        "points": points,
        "base": {"reward": mean(0, 0.1), "gold": mean(0, 0.1)},
        "fits": {
            "bon": {"gold": {"alpha": 0.9, "beta": 0.1, "r2": 0.98}, "reward": {"alpha": 1.0, "beta": 0.05}},
            "rl": {"gold": {"alpha": 0.62, "beta": 0.2, "r2": 0.9}, "reward": {"alpha": 0.5, "beta": 0.01}},
        },
        "peak": {"label": "step 40", "sqrt_kl": 3.4, "gold": 1.0},
        "recommended": "step 40",
        "words": "The gold reward is highest at step 40, and falls after it while the reward in training still rises.",
    }


def accuracy(rate: float, n: int) -> dict[str, Any]:
    half = 1.96 * math.sqrt(rate * (1 - rate) / n)
    found = {"accuracy": rate, "interval": [rate - half, rate + half], "standard_error": half / 1.96, "n": n}
    return {**found, "groups": None, "method": "bootstrap over pairs (BCa)"}


def curves() -> dict[str, Any]:
    steps = list(range(60))
    return {
        "dpo": {"x": steps, "series": {"loss": [0.69 * 0.99**step for step in steps]}},
        "ppo": {"x": steps, "series": {"objective/kl": [0.6 * step for step in steps]}},
    }


def samples(count: int = 24) -> list[dict[str, Any]]:
    """samples.jsonl: plain prompts of the main set, two of challenge sets, one conversation."""
    names = ["base", *MODELS]
    rows = []
    for number in range(count):
        scores = {name: math.sin(number * (place + 1)) for place, name in enumerate(names)}
        preferences = {
            name: 0.5 + 0.5 * ((scores[name] > scores["base"]) - (scores[name] < scores["base"])) for name in MODELS
        }
        if number % 7 == 0:
            preferences["dpo"] = 0.5
        question = f"How long should I boil egg number {number} if I want its yolk to stay soft?"
        turns = [{"role": "user", "content": question}]
        if number == 1:
            turns = [{"role": "user", "content": "Name a river."}, {"role": "assistant", "content": "Danube."}, *turns]
        rows.append(
            {
                "id": f"{number:04x}",
                "set": {count - 1: "safety", count - 2: "maths"}.get(number, ""),
                "tags": ["lang:de"] if number % 4 == 0 else ["lang:en"],
                "prompt": turns,
                "responses": {
                    name: "" if number == 2 and name == "dpo" else f"{name} says: {number % 5 + 4} minutes."
                    for name in names
                },
                "scores": {"reward": scores},
                "preferences": {"people": preferences, "reward": preferences},
                "tokens": {name: 9 for name in names},
            }
        )
    return rows
