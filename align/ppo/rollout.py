"""Rollouts: what the policy says to prompts, what that is worth, and what the roles think of every token."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from align.data.lengths import like_lengths
from align.models.logprobs import to_rows
from align.models.rewards import Rewards, limited
from align.models.roles import Roles
from align.models.sampling import Engine, sample
from align.ppo.config import PPOConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Prompts(NamedTuple):
    """Prompts, as lists of turns, and the other columns of their data, which reward functions may want."""

    turns: list[list[dict[str, str]]]
    columns: dict[str, list[Any]]
    dropped: int = 0  # too long

    def take(self, numbers: Sequence[int]) -> "Prompts":
        """Those of the given numbers, in their order."""
        columns = {key: [values[n] for n in numbers] for key, values in self.columns.items()}
        return Prompts([self.turns[n] for n in numbers], columns)


class Rollout(NamedTuple):
    """One response and what was thought of it when it was made. Lists have one number a response token."""

    number: int  # its place in the batch, whichever process made it
    turns: list[dict[str, str]]
    prompt: list[int]
    response: list[int]
    text: str
    ended: bool
    score: float | None  # clipped, and less the penalty for not ending; None where every reward source abstained
    parts: dict[str, float | None]  # what each reward source said
    logprobs: list[float]  # of the policy
    reference: list[float]  # log-probabilities of the reference; the policy's own where there is none
    values: list[float]
    entropy: list[float]  # of the policy, in nats


class Batch(NamedTuple):
    """Rollouts as tensors. b: rollouts, t: the longest response, in tokens."""

    mask: torch.Tensor  # (b, t) bool: response tokens; none where nobody said what the response is worth
    scores: torch.Tensor  # (b,), 0 where nobody said
    logprobs: torch.Tensor  # (b, t)
    reference: torch.Tensor  # (b, t)
    values: torch.Tensor  # (b, t)


def make_rollouts(
    roles: Roles,
    tokenizer: "PreTrainedTokenizerBase",
    rewards: Rewards,
    prompts: Prompts,
    numbers: Sequence[int],
    seeds: Sequence[int],
    args: PPOConfig,
    engine: Engine | None = None,
) -> list[Rollout]:
    """Sample a response to each prompt from its seed, score it, and look at it with all roles.

    Log-probabilities come from a forward pass, not from sampling, at the temperature of the sampling.
    """
    if not numbers:  # more processes than held-out prompts
        return []
    with roles.acting("policy") as model:
        said = sample(
            model,
            tokenizer,
            prompts.turns,
            seeds,
            max_new_tokens=args.response_length,
            temperature=args.temperature,
            stop_tokens=args.stop_tokens or (),
            batch_size=args.per_device_rollout_batch_size,
            engine=engine,
        )
    worth = rewards(prompts.turns, said.texts, prompts.columns)
    rollouts: dict[int, Rollout] = {}
    lengths = [len(prompt) + len(response) for prompt, response in zip(said.prompts, said.responses, strict=True)]
    for batch in like_lengths(lengths, args.per_device_train_batch_size, roles.device.type):
        rows = to_rows([said.prompts[n] for n in batch], [said.responses[n] for n in batch], roles.device)
        with torch.no_grad():
            states = roles.states("policy", rows.ids)
            logprobs, entropy = roles.logprobs("policy", states, rows, args.temperature, entropy=True)
            values = roles.values(states if roles.shared else roles.states("value", rows.ids), rows)
            reference = logprobs
            if "reference" in roles.players:
                states = roles.states("reference", rows.ids)
                reference, _ = roles.logprobs("reference", states, rows, args.temperature)
        looks = [tensor.tolist() for tensor in (logprobs, reference, values, entropy) if tensor is not None]
        for row, n in enumerate(batch):
            length = len(said.responses[n])
            rollouts[n] = Rollout(
                numbers[n],
                prompts.turns[n],
                said.prompts[n],
                said.responses[n],
                said.texts[n],
                said.ended[n],
                limited(worth.total[n], said.ended[n], args.score_clip, args.missing_eos_penalty),
                {name: part[n] for name, part in worth.parts.items()},
                *(look[row][:length] for look in looks),
            )
    return [rollouts[n] for n in range(len(numbers))]


def to_batch(rollouts: Sequence[Rollout], device: Any) -> Batch:
    """Rollouts as padded tensors."""

    def padded(rows: Sequence[Sequence[float]]) -> torch.Tensor:
        parts = [torch.tensor(row, dtype=torch.float32) for row in rows]
        return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True).to(device)

    scored = [rollout.score is not None for rollout in rollouts]
    return Batch(
        mask=padded([[float(s)] * len(r.response) for r, s in zip(rollouts, scored, strict=True)]).bool(),
        scores=torch.tensor([r.score or 0.0 for r in rollouts], dtype=torch.float32, device=device),
        logprobs=padded([r.logprobs for r in rollouts]),
        reference=padded([r.reference for r in rollouts]),
        values=padded([r.values for r in rollouts]),
    )
