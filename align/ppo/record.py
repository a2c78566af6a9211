"""What a PPO run leaves to look at: metrics.jsonl, completions.jsonl, curves.png, and warnings in plain words."""

import json
from collections.abc import Sequence
from typing import Any

import torch

from align.ppo.config import PPOConfig
from align.ppo.rollout import Batch, Rollout
from align.ppo.watch import distinct_ngrams, warnings
from align.run.manifest import Run
from align.run.plots import draw_ppo
from align.run.progress import say
from preferences.files import read_jsonl

_COMPLETIONS = 4  # of each update, that completions.jsonl keeps


class Record:
    """The run folder's account of a run. Only the main process writes."""

    def __init__(self, run: Run, args: PPOConfig) -> None:
        self.run = run
        self.args = args
        self.rows: list[dict[str, float]] = []
        self.told: list[str] = []  # signs of trouble that were said, each once

    def describe(self, rollouts: Sequence[Rollout], batch: Batch, rewards: torch.Tensor) -> dict[str, float]:
        """Means over a batch of rollouts, under TRL's names where it has them. KL is k1, in nats a response."""
        scores = [rollout.score for rollout in rollouts if rollout.score is not None]
        mean = sum(scores) / max(len(scores), 1)
        spread = (sum((score - mean) ** 2 for score in scores) / max(len(scores), 1)) ** 0.5
        sources = {f"objective/scores/{name}": _mean([r.parts[name] for r in rollouts]) for name in rollouts[0].parts}
        return {
            **_of_responses(rollouts, "response"),
            "objective/scores": mean,
            "objective/scores_std": spread,
            "objective/kl": _mean([_kl(rollout) for rollout in rollouts]),
            "objective/rlhf_reward": float(rewards.sum(-1).mean()),
            "objective/entropy": _mean([sum(rollout.entropy) for rollout in rollouts]),
            "policy/entropy_avg": sum(sum(r.entropy) for r in rollouts) / sum(len(r.response) for r in rollouts),
            "response/abstained": 1 - len(scores) / len(rollouts),
            **(sources if len(sources) > 1 else {}),
        }

    def describe_held_out(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """The same of held-out prompts, as far as it says something there."""
        return {
            **_of_responses(rollouts, "eval"),
            "eval/scores": _mean([rollout.score for rollout in rollouts]),
            "eval/kl": _mean([_kl(rollout) for rollout in rollouts]),
        }

    def log(self, update: int, updates: int, told: dict[str, float], rollouts: Sequence[Rollout]) -> None:
        """Keep an update's numbers and a few of its completions; say the most telling, and what looks wrong."""
        self.log_row({"step": update, **told})
        if self.run.writes:
            with open(self.run.folder / "completions.jsonl", "a", encoding="utf-8") as stream:
                for rollout in rollouts[:_COMPLETIONS]:
                    shown = {"prompt": rollout.turns, "completion": rollout.text, "ended": rollout.ended}
                    shown |= {"score": rollout.score, "kl": _kl(rollout), "scores": rollout.parts}
                    stream.write(json.dumps({"step": update, **shown}, ensure_ascii=False) + "\n")
        say(
            f"update {update}/{updates}  score {told['objective/scores']:+.3f}  KL {told['objective/kl']:.3f}"
            f"  ended {told['response/ended']:.2f}  tokens {told['response/tokens']:.1f}  {told['seconds']:.1f} s"
        )
        found = warnings(self.rows, response_length=self.args.response_length, kl_budget=self.args.kl_budget)
        for sign in found:
            if sign.sign not in self.told:
                self.told.append(sign.sign)
                say(f"warning: {sign.sentence}")

    def log_row(self, row: dict[str, Any]) -> None:
        """One line of metrics.jsonl."""
        self.rows.append(row)
        self.run.log(row)

    def forget_after(self, step: int) -> None:
        """Forget what a killed run had logged after its last checkpoint; the run will log it again."""
        self.run.forget_after(step)
        self.run.forget_after(step, "completions.jsonl")
        path = self.run.folder / "metrics.jsonl"
        if self.run.writes and path.is_file():  # another process could read before the cut-off line is gone
            self.rows = [row for _, row in read_jsonl(path)]

    def draw(self, best: dict[str, float] | None) -> None:
        """curves.png."""
        if self.run.writes and any("objective/scores" in row for row in self.rows):
            draw_ppo(
                self.rows,
                self.run.folder / "curves.png",
                best_step=int(best["step"]) if best else None,
                kl_budget=self.args.kl_budget,
            )


def _of_responses(rollouts: Sequence[Rollout], prefix: str) -> dict[str, float]:
    return {
        f"{prefix}/tokens": _mean([len(rollout.response) for rollout in rollouts]),
        f"{prefix}/ended": _mean([float(rollout.ended) for rollout in rollouts]),
        f"{prefix}/distinct_2": distinct_ngrams([rollout.response for rollout in rollouts], 2),
    }


def _kl(rollout: Rollout) -> float:
    return sum(rollout.logprobs) - sum(rollout.reference)


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / max(len(known), 1)
