"""Whether an exported model says what the trained one said: on real prompts, by the models' own forward passes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from align.models.sampling import Samples, sample, seed_of
from align.models.scores import RewardModel, conversation_ids
from align.run.progress import Progress

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

PROMPTS = 32  # looked at, at most
LENGTH = 64  # new tokens of a response, at most

# How far the mean |difference| of a token's log-probability may go, in nats, and of a reward model's scores in units of
# their spread: above what rounding the weights to the type costs (benchmarks/export_tolerance.py), far below what a
# wrong merge does.
EIGHT_BITS = (
    2e-2  # the same where the base was trained on in 8 bits: it rounded its activations, too, and no export does
)
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2, "q8_0": 0.15}


def compare_policies(
    trained: Any,
    exported: Any,
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Any],
    tolerance: float,
    judge: RewardModel | None = None,
) -> dict[str, Any]:
    """What is different between two language models. prompts: lists of turns, which leave room for LENGTH tokens.

    Logits and log-probabilities are compared on what the trained model answers, the logits at the prompt's tokens, too.
    Both draw their responses from the same seeds, at temperature 1. Two responses that are equal tie under every judge,
    so no judge can see a win rate farther from 0.5 than half the share of those that differ.
    """
    answers = _answers("the trained model answers", trained, tokenizer, prompts)
    others = _answers("the exported model answers", exported, tokenizer, prompts)
    logits, logprobs = _Differences(), _Differences()
    progress = Progress("comparing", len(prompts), "texts")
    for prompt, response in zip(answers.prompts, answers.responses, strict=True):
        both = [_logits(model, [*prompt, *response]) for model in (trained, exported)]
        logits.add(*both)
        of_response = [_of_tokens(each[len(prompt) - 1 : -1], response) for each in both]
        logprobs.add(*of_response)
        progress.tell(1)
    progress.end()
    differ = [one != other for one, other in zip(answers.responses, others.responses, strict=True)]
    share = sum(differ) / len(differ)
    within = logprobs.mean <= tolerance
    return {
        "prompts": len(prompts),
        "tokens": logits.rows,
        "logits": {"max_difference": logits.largest, "mean_difference": logits.mean, "largest": logits.size},
        "log_probabilities": {
            "tokens": logprobs.rows,
            "max_difference": logprobs.largest,
            "mean_difference": logprobs.mean,
            "tolerance": tolerance,
        },
        "responses": {"sampled": len(differ), "differ": share, "temperature": 1.0, "max_new_tokens": LENGTH},
        "win_rate": _win_rate(prompts, answers.texts, others.texts, share, judge),
        "within_tolerance": within,
    }


def _answers(what: str, model: Any, tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[Any]) -> Samples:
    progress = Progress(what, len(prompts), "prompts")
    found = Samples([], [], [], [])
    for start in range(0, len(prompts), 8):
        some = prompts[start : start + 8]
        seeds = [seed_of("export", start + number) for number in range(len(some))]
        part = sample(model, tokenizer, some, seeds, max_new_tokens=LENGTH)
        found.prompts.extend(part.prompts)
        found.responses.extend(part.responses)
        found.texts.extend(part.texts)
        found.ended.extend(part.ended)
        progress.tell(len(some))
    progress.end()
    return found


def _win_rate(
    prompts: Sequence[Any], trained: Sequence[str], exported: Sequence[str], share: float, judge: RewardModel | None
) -> dict[str, Any]:
    """The exported model's win rate against the trained one: a judge's, and in what bounds any judge's must lie."""
    found: dict[str, Any] = {"judge": None, "low": 0.5 - share / 2, "high": 0.5 + share / 2}
    if judge is not None:
        before, after = (judge.scores(prompts, texts, 8) for texts in (trained, exported))
        wins = [0.5 if b == a else float(a > b) for b, a in zip(before, after, strict=True)]
        rate = sum(wins) / len(wins)
        found |= {"judge": judge.name, "value": rate, "difference": rate - 0.5}
    return found


def compare_reward_models(
    trained: Any,
    exported: Any,
    tokenizer: "PreTrainedTokenizerBase",
    texts: Sequence[tuple[Any, str]],
    tolerance: float,
) -> dict[str, Any]:
    """What is different between two reward models' scores of (prompt, response), in units of the trained one's spread.

    Each conversation goes through transformers' own classifiers alone, without padding.
    """
    import torch

    before: list[float] = []
    after: list[float] = []
    progress = Progress("comparing", len(texts), "texts")
    for prompt, response in texts:
        ids = conversation_ids(tokenizer, prompt, response)
        for model, scores in ((trained, before), (exported, after)):
            with torch.no_grad():
                scores.append(float(model(input_ids=torch.tensor([ids], device=model.device)).logits[0, 0]))
        progress.tell(1)
    progress.end()
    spread = max(float(torch.tensor(before).std(correction=0)), 1e-8)
    differences = [abs(one - other) for one, other in zip(before, after, strict=True)]
    pairs = [(i, j) for i in range(len(texts)) for j in range(i) if before[i] != before[j]]
    turned = [(before[i] > before[j]) != (after[i] > after[j]) for i, j in pairs]
    mean = sum(differences) / len(differences)
    return {
        "texts": len(texts),
        "scores": {
            "max_difference": max(differences),
            "mean_difference": mean,
            "spread": spread,
            "tolerance": tolerance,  # of the mean, in spreads
        },
        "orders": {"pairs": len(pairs), "differ": sum(turned) / len(turned) if turned else 0.0},
        "within_tolerance": mean / spread <= tolerance,
    }


def in_words(proof: dict[str, Any], trained: str, exported: str) -> list[str]:
    """The proof in sentences. trained, exported: how the two were computed."""
    lines = [f"compared with the trained model ({trained}; exported: {exported}):"]
    if "scores" in proof:
        scores, orders = proof["scores"], proof["orders"]
        lines += [
            f"  scores of {proof['texts']} texts differ by {scores['mean_difference']:.2g} on average, at most"
            f" {scores['max_difference']:.2g}; their spread is {scores['spread']:.2g}",
            f"  of {orders['pairs']} pairs of texts {orders['differ']:.1%} change their order",
        ]
    else:
        logits, logprobs, responses = proof["logits"], proof["log_probabilities"], proof["responses"]
        win = proof["win_rate"]
        judged = f"{win['value']:.3f} by {win['judge']}, and " if win["judge"] else ""
        lines += [
            f"  logits at {proof['tokens']} tokens of {proof['prompts']} conversations differ by"
            f" {logits['mean_difference']:.2g} on average, at most {logits['max_difference']:.2g} (the largest logit is"
            f" {logits['largest']:.3g})",
            f"  log-probabilities of {logprobs['tokens']} response tokens differ by {logprobs['mean_difference']:.2g}"
            f" nats on average, at most {logprobs['max_difference']:.2g}",
            f"  of {responses['sampled']} responses from the same seeds {responses['differ']:.0%} differ; the win rate"
            f" against the trained model is {judged}within {win['low']:.3f} to {win['high']:.3f} by any judge",
        ]
    of = proof.get("scores") or proof["log_probabilities"]
    mean, unit = of["mean_difference"] / of.get("spread", 1.0), "spreads" if "spread" in of else "nats"
    if proof["within_tolerance"]:
        lines.append(
            f"the same model: rounding explains up to {of['tolerance']:g} {unit} on average, and it is {mean:.2g}"
        )
    else:
        lines.append(
            f"NOT THE SAME MODEL: a mean difference of {mean:.2g} {unit} is above {of['tolerance']:g}, which rounding"
            " explains; it is written, but look before you serve it"
        )
    return lines


class _Differences:
    """|a - b| over all numbers of tensors (rows, ...), as they come."""

    def __init__(self) -> None:
        self.largest = self.size = self._sum = 0.0
        self.rows = self._count = 0

    def add(self, one: "torch.Tensor", other: "torch.Tensor") -> None:
        difference = (one - other).abs()
        self.largest = max(self.largest, float(difference.max()))
        self.size = max(self.size, float(one.abs().max()))
        self._sum += float(difference.double().sum())
        self._count += difference.numel()
        self.rows += len(one)

    @property
    def mean(self) -> float:
        return self._sum / max(self._count, 1)


def _logits(model: Any, ids: list[int]) -> "torch.Tensor":
    """(n, v) float32 on the CPU, of one text of n tokens."""
    import torch

    with torch.no_grad():
        out = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
    logits: torch.Tensor = out.logits[0].float().cpu()
    return logits


def _of_tokens(logits: "torch.Tensor", tokens: list[int]) -> "torch.Tensor":
    """(t,): log-probabilities of t tokens, from the logits (t, v) that predict them."""
    import torch

    return logits.log_softmax(-1).gather(-1, torch.tensor(tokens)[:, None]).squeeze(-1)
