"""What a batch of rollouts teaches: epochs of mini-batches, each one step of the optimiser."""

import math
import warnings
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator

from align.data.lengths import like_lengths
from align.models.logprobs import to_rows
from align.models.roles import Roles
from align.models.sampling import seed_of
from align.ppo.advantages import kl_estimate
from align.ppo.config import PPOConfig
from align.ppo.losses import policy_loss, value_loss
from align.ppo.rollout import Batch, Rollout
from preferences.errors import BadInput

# What is summed over tokens while learning, under TRL's names.
_SUMS = (
    "loss/policy_avg",
    "loss/value_avg",
    "policy/clipfrac_avg",
    "policy/approxkl_avg",
    "val/clipfrac_avg",
    "val/ratio",
)


class Learner:
    """The trained parameters, their optimiser and its schedule."""

    def __init__(self, args: PPOConfig, accelerator: Accelerator, roles: Roles, updates: int) -> None:
        self.args = args
        self.accelerator = accelerator
        self.roles = roles
        self.policy, self.value = roles.parameters_of("policy"), roles.parameters_of("value")
        self.parameters = self.policy | self.value
        # Adam's epsilon is 1e-5 in all of OpenAI's PPO: a tenth of a gradient's usual size still counts as one
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=args.learning_rate, eps=1e-5, weight_decay=0.0)
        self.scheduler = _schedule(args, self.optimizer, updates)

    def learn(
        self,
        update: int,
        rollouts: list[Rollout],
        batch: Batch,
        advantages: torch.Tensor,
        returns: torch.Tensor,
        kl_coef: float,
    ) -> dict[str, float]:
        """Every epoch sees every rollout once. advantages, returns: (b, t). Means over the steps taken.

        Raises BadInput before a step that would spoil the weights.
        """
        args = self.args
        told = {"lr": self.scheduler.get_last_lr()[0], "objective/kl_coef": kl_coef, "policy/early_stop": 0.0}
        steps: list[dict[str, float]] = []
        for epoch in range(args.num_ppo_epochs):
            generator = torch.Generator().manual_seed(seed_of(args.seed, "shuffle", update, epoch))
            shuffled = torch.randperm(len(rollouts), generator=generator)
            for number, rows in enumerate(shuffled.chunk(args.num_mini_batches), start=1):
                if not batch.mask[rows].any():
                    continue  # nobody said what these responses are worth
                where = f"update {update}, epoch {epoch + 1}, mini-batch {number}"
                found = self._accumulate(rollouts, batch, advantages, returns, rows.tolist(), kl_coef)
                if args.target_kl is not None and found["policy/approxkl_avg"] > args.target_kl:
                    told["policy/early_stop"] = 1.0
                    break
                # clipped apart: a large value loss must not shrink the policy's step
                found["policy/grad_norm"] = _clip(self.policy, args.max_grad_norm)
                found["val/grad_norm"] = _clip(self.value, args.max_grad_norm)
                self._check_finite(found, where, [rollouts[n] for n in rows.tolist()])
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                steps.append(found)
            if told["policy/early_stop"]:
                self.optimizer.zero_grad(set_to_none=True)
                break
        self.scheduler.step()
        means = {name: sum(step[name] for step in steps) / len(steps) for name in (steps[0] if steps else ())}
        return told | means | {"policy/steps": float(len(steps))}

    def go_on_after(self, updates: int) -> None:
        """Move the schedule to where it was after so many updates."""
        with warnings.catch_warnings():  # torch warns of a schedule that moves before the optimiser has
            warnings.simplefilter("ignore")
            for _ in range(updates):
                self.scheduler.step()

    def _accumulate(
        self,
        rollouts: list[Rollout],
        batch: Batch,
        advantages: torch.Tensor,
        returns: torch.Tensor,
        rows: list[int],
        kl_coef: float,
    ) -> dict[str, float]:
        """Put the gradient of a mini-batch's mean loss a token into the parameters; its parts, over all processes.

        Losses are sums over tokens divided by the tokens of the whole mini-batch, so micro-batches add up exactly.
        """
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        tokens = max(float(batch.mask[rows].sum()), 1.0)
        lengths = {n: len(rollouts[n].prompt) + len(rollouts[n].response) for n in rows}
        mine = sorted(rows, key=lengths.__getitem__)[rank::processes]  # like lengths for everybody, so nobody waits
        sums = torch.zeros(len(_SUMS), device=self.accelerator.device)
        for places in like_lengths(
            [lengths[n] for n in mine], self.args.per_device_train_batch_size, self.accelerator.device.type
        ):
            micro = [mine[place] for place in places]
            part = Batch(*(tensor[micro] for tensor in batch))
            sums += self._backward(
                [rollouts[n] for n in micro], part, advantages[micro], returns[micro], tokens, kl_coef
            )
        if processes > 1:
            for parameter in self.parameters.values():
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self.accelerator.reduce(gradient, reduction="sum")
            sums = self.accelerator.reduce(sums, reduction="sum")
        return dict(zip(_SUMS, (sums / tokens).tolist(), strict=True))

    def _backward(
        self,
        rollouts: list[Rollout],
        batch: Batch,
        advantages: torch.Tensor,
        returns: torch.Tensor,
        tokens: float,
        kl_coef: float,
    ) -> torch.Tensor:
        """Add one micro-batch's gradients: the policy's forward and backward, then the value model's. The _SUMS."""
        args, roles = self.args, self.roles
        rows = to_rows([r.prompt for r in rollouts], [r.response for r in rollouts], roles.device)
        length = rows.mask.shape[1]
        mask, old_logprobs, reference, old_values = (
            tensor[:, :length] for tensor in (batch.mask, batch.logprobs, batch.reference, batch.values)
        )
        advantages, returns = advantages[:, :length], returns[:, :length]
        with roles.recomputing() if args.activation_checkpointing else nullcontext():
            states = roles.states("policy", rows.ids)
            logprobs, entropy = roles.logprobs("policy", states, rows, args.temperature, entropy=args.entropy_coef > 0)
            ppo = policy_loss(logprobs, old_logprobs, advantages, mask, args.cliprange)
            loss = ppo.loss
            if args.kl_in == "loss":
                kl = kl_estimate(logprobs, reference, args.kl_estimator)
                loss = loss + kl_coef * torch.where(mask, kl, 0.0).sum()
            if entropy is not None:
                loss = loss - args.entropy_coef * torch.where(mask, entropy, 0.0).sum()
            if not roles.shared:
                (loss / tokens).backward()
                states = roles.states("value", rows.ids)
            fit = value_loss(roles.values(states, rows), old_values, returns, mask, args.cliprange_value)
            rest = args.vf_coef * fit.loss + (loss if roles.shared else 0.0)
            (rest / tokens).backward()
        parts = (loss, fit.loss, ppo.clipped, ppo.approx_kl, fit.clipped, ppo.ratio)
        return torch.stack([part.detach().float() for part in parts])

    def _check_finite(self, found: dict[str, float], where: str, rollouts: list[Rollout]) -> None:
        bad = [name for name, value in found.items() if not math.isfinite(value)]
        if bad:
            prompts = ", ".join(repr(rollout.turns[-1]["content"][:30]) for rollout in rollouts[:3])
            raise BadInput(
                f"{self.args.output_dir}: {where} ({len(rollouts)} responses, to {prompts}, …): {bad[0]} is not"
                " finite; the run stops before that step, its last good checkpoint in place; lower learning_rate, or"
                " look at those prompts"
            )


def _schedule(args: PPOConfig, optimizer: torch.optim.Optimizer, updates: int) -> Any:
    """transformers' schedule over updates, not optimiser steps: a target_kl that skips steps doesn't bend it."""
    from transformers import get_scheduler

    if args.lr_scheduler_type == "reduce_lr_on_plateau":
        raise BadInput("key `lr_scheduler_type`: reduce_lr_on_plateau needs a loss that falls, and PPO's says nothing")
    late = int(args.warmup_steps > 0)  # a warm-up starts at a rate of 0, at which an update would teach nothing
    try:
        schedule = get_scheduler(args.lr_scheduler_type, optimizer, args.warmup_steps, updates + late)
    except ValueError as error:
        raise BadInput(f"key `lr_scheduler_type`: {' '.join(str(error).split())}") from None
    with warnings.catch_warnings():  # torch warns of a schedule that moves before the optimiser has
        warnings.simplefilter("ignore")
        for _ in range(late):
            schedule.step()
    return schedule


def _clip(parameters: dict[str, torch.nn.Parameter], most: float) -> float:
    """Clip the gradients' norm to `most`; what it was before."""
    return float(torch.nn.utils.clip_grad_norm_(parameters.values(), most))
