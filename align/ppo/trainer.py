"""`align ppo`: Proximal Policy Optimization (arXiv 1707.06347) from a reward run, with all four roles on one base.

The loop in `train` reads as the algorithm. Left out for now: reward functions and ensembles, whole-model roles,
adaptive KL, FSDP and DeepSpeed (several processes train as data-parallel copies of the adapters).
"""

import time
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator

from align.config import parse
from align.data.lengths import check_prompts, context_length
from align.data.load import data_facts, load_prompts
from align.models.load import find_model, load_config, load_tokenizer, model_facts
from align.models.roles import Roles, load_roles
from align.ppo.advantages import gae, token_rewards, whiten
from align.ppo.config import PPOConfig
from align.ppo.losses import policy_loss, value_loss
from align.ppo.rollout import Rollouts, make_rollouts
from align.run.checkpoint import load_checkpoint, save_checkpoint
from align.run.disk import full_disk_is_said
from align.run.launch import check_world, sharded
from align.run.manifest import Run, check_output_folder, hash_weights, is_run, start_run
from align.run.progress import say
from preferences.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def run_ppo(recipe: dict[str, Any], where: str, *, resume: bool = False, overwrite: bool = False) -> None:
    """Train a policy with PPO on the prompts of a data set. Raises BadInput before anything is written."""
    from trl import ModelConfig, get_peft_config

    recipe = {"dtype": "auto", **recipe}  # TRL's default is fp32, whatever the GPU
    args, model_args = parse(recipe, (PPOConfig, ModelConfig), where)
    if not model_args.model_name_or_path:
        raise BadInput(f"{where}: the key `model_name_or_path` is missing; name a hub model or a model folder")
    if kind := sharded():
        raise BadInput(f"PPO keeps its four roles on one whole base and does not run under {kind}; take multi_gpu")
    accelerator = Accelerator(cpu=args.use_cpu or not torch.cuda.is_available())
    check_world(accelerator.num_processes)
    check_output_folder(args.output_dir, "ppo", resume, overwrite)
    source = find_model(model_args.model_name_or_path, model_args.model_revision)
    reward = find_model(args.reward_model_path)
    if not source.adapter and not model_args.use_peft:
        raise BadInput(f"{where}: PPO trains adapters on one shared base; add `use_peft: true`")
    tokenizer = load_tokenizer(source)
    prompts = load_prompts(args.dataset_name, args.dataset_train_split, args.dataset_config)
    check_prompts(tokenizer, prompts, args.response_length, context_length(load_config(source)), args.dataset_name)
    if args.batch_size % accelerator.num_processes:
        raise BadInput(
            f"{where}: batch_size {args.batch_size} does not divide into {accelerator.num_processes} processes"
        )
    model_args.lora_task_type = "CAUSAL_LM"
    model_args.lora_target_modules = model_args.lora_target_modules or "all-linear"
    torch.manual_seed(args.seed)
    roles = load_roles(source, reward, model_args, get_peft_config(model_args))

    accelerator.wait_for_everyone()  # until every process has found the input right, the folder free among it
    run = start_run(
        "ppo",
        recipe,
        inputs={
            "model": model_facts(source),
            "reward_model": model_facts(reward),
            "dataset": data_facts(args.dataset_name),
        },
        parents=[f for f in (source.name, args.reward_model_path, args.dataset_name) if is_run(f)],
        seed=args.seed,
        resume=resume,
        processes=accelerator.num_processes,
        writes=accelerator.is_main_process,
    )
    with full_disk_is_said(run.folder):
        train(args, roles, tokenizer, prompts, accelerator, run)
        if accelerator.is_main_process:
            roles.save_policy(run.folder)
            tokenizer.save_pretrained(str(run.folder))
    run.finish(weights_sha256=hash_weights(run.folder), prompts=len(prompts))
    say(f"finished in {run.manifest['seconds']:.0f} s: {run.folder}")


def train(
    args: PPOConfig,
    roles: Roles,
    tokenizer: "PreTrainedTokenizerBase",
    prompts: list[Any],
    accelerator: Accelerator,
    run: Run,
) -> None:
    """The loop: rollout, score, advantages, update."""
    policy, value = roles.parameters_of("policy"), roles.parameters_of("value")
    everything = policy | value
    optimizer = torch.optim.AdamW(everything.values(), lr=args.learning_rate, eps=1e-5, weight_decay=0.0)
    rank, processes = accelerator.process_index, accelerator.num_processes
    updates = -(-args.total_episodes // args.batch_size)
    done = _resume(run, everything, optimizer)

    for update in range(done + 1, updates + 1):
        started = time.monotonic()
        # 1. Roll out. Randomness is a function of (seed, update, process), so a resumed run needs no stored state.
        torch.manual_seed(args.seed + 1_000_003 * update + rank)
        mine = batch_of_prompts(len(prompts), update, args.batch_size, args.seed)[rank::processes]
        rollouts = make_rollouts(
            roles,
            tokenizer,
            [prompts[number] for number in mine],
            response_length=args.response_length,
            temperature=args.temperature,
            missing_eos_penalty=args.missing_eos_penalty,
            batch_size=args.per_device_train_batch_size,
        )
        rolled_out = time.monotonic()

        # 2. The score at the last token, the KL penalty at every token.
        mask = rollouts.response_mask
        rewards = token_rewards(rollouts.scores, rollouts.logprobs, rollouts.reference_logprobs, mask, args.kl_coef)

        # 3. Advantages, whitened over the whole batch.
        advantages, returns = gae(rewards, rollouts.values, mask, args.gamma, args.lam)
        advantages = whiten(advantages, mask, *_moments(advantages, mask, accelerator))

        # 4. Update: every epoch sees every rollout once, in mini-batches of one optimiser step each.
        sums: dict[str, float] = {}
        steps = 0
        for epoch in range(args.num_ppo_epochs):
            generator = torch.Generator().manual_seed(args.seed + 1_000_003 * update + 7919 * (epoch + 1))
            shuffled = torch.randperm(len(mine), generator=generator)
            for minibatch in shuffled.chunk(args.num_mini_batches):
                tokens = _total(mask[minibatch].sum(), accelerator)
                for micro in minibatch.split(args.per_device_train_batch_size):
                    for name, number in _backward(roles, rollouts, advantages, returns, micro, tokens, args).items():
                        sums[name] = sums.get(name, 0.0) + number / tokens
                for parameter in everything.values():
                    if processes > 1 and parameter.grad is not None:
                        parameter.grad = accelerator.reduce(parameter.grad, reduction="sum")
                # clipped apart: a large value loss must not shrink the policy's step
                norm = torch.nn.utils.clip_grad_norm_(policy.values(), args.max_grad_norm)
                torch.nn.utils.clip_grad_norm_(value.values(), args.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                sums["policy/grad_norm"] = sums.get("policy/grad_norm", 0.0) + norm.item() / processes
                steps += 1

        # 5. Say what happened, and keep it.
        metrics = _describe(rollouts, rewards, returns, accelerator)
        metrics |= {name: _total(torch.tensor(total / steps), accelerator) for name, total in sums.items()}
        seconds = time.monotonic() - started
        metrics |= {"seconds": seconds, "seconds_rollout": rolled_out - started, "episode": update * args.batch_size}
        run.log({"step": update, **metrics})
        say(
            f"update {update}/{updates}  score {metrics['objective/scores']:+.3f}  KL {metrics['objective/kl']:.3f}"
            f"  ended {metrics['response/ended']:.2f}  tokens {metrics['response/tokens']:.1f}  {seconds:.1f} s"
        )
        if update % args.save_steps == 0 and update < updates and accelerator.is_main_process:
            save_checkpoint(run.folder, update, dict(everything), optimizer)


def batch_of_prompts(count: int, update: int, batch_size: int, seed: int) -> list[int]:
    """The prompt numbers of an update (from 1): epochs of seeded permutations laid end to end, cut into batches."""
    numbers = []
    for episode in range((update - 1) * batch_size, update * batch_size):
        epoch, place = divmod(episode, count)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed + epoch))
        numbers.append(int(order[place]))
    return numbers


def _backward(
    roles: Roles,
    rollouts: Rollouts,
    advantages: torch.Tensor,
    returns: torch.Tensor,
    rows: torch.Tensor,
    tokens: float,
    args: PPOConfig,
) -> dict[str, float]:
    """Add one micro-batch's gradients: the policy's forward and backward, then the value model's.

    Losses are sums over tokens divided by the tokens of the whole mini-batch, so micro-batches add up exactly.
    """
    ids, mask, keep = rollouts.ids[rows], rollouts.mask[rows], rollouts.response_mask[rows]
    length = keep.shape[1]
    logprobs, entropy = roles.logprobs("policy", ids, mask, length, args.temperature)
    ppo = policy_loss(logprobs, rollouts.logprobs[rows], advantages[rows], keep, args.cliprange)
    (ppo.loss / tokens).backward()
    values = roles.values(ids, mask, length)
    fit = value_loss(values, rollouts.values[rows], returns[rows], keep, args.cliprange_value)
    (args.vf_coef * fit.loss / tokens).backward()
    return {
        "loss/policy_avg": ppo.loss.item(),
        "loss/value_avg": fit.loss.item(),
        "policy/clipfrac_avg": ppo.clipped.item(),
        "policy/approxkl_avg": ppo.approx_kl.item(),
        "policy/entropy_avg": (entropy * keep).sum().item(),
        "val/clipfrac_avg": fit.clipped.item(),
        "val/ratio": ppo.ratio.item(),
    }


def _describe(
    rollouts: Rollouts, rewards: torch.Tensor, returns: torch.Tensor, accelerator: Accelerator
) -> dict[str, float]:
    """What TRL called objective/*, and the shape of the responses; means over all processes' rollouts."""
    mask = rollouts.response_mask
    kl = ((rollouts.logprobs - rollouts.reference_logprobs) * mask).sum(-1)
    count = _total(torch.tensor(float(len(kl))), accelerator)

    def mean(per_rollout: torch.Tensor) -> float:
        return _total(per_rollout.float().sum(), accelerator) / count

    _, spread = _moments(returns, mask, accelerator)
    _, missed = _moments(returns - rollouts.values * mask, mask, accelerator)
    return {
        "objective/scores": mean(rollouts.scores),
        "objective/kl": mean(kl),
        "objective/rlhf_reward": mean(rewards.sum(-1)),
        "objective/entropy": mean((rollouts.entropy * mask).sum(-1)),
        "response/tokens": mean(mask.sum(-1)),
        "response/ended": mean(rollouts.ended),
        "val/explained_variance": 1 - (missed / spread.clamp(min=1e-8)).item(),
    }


def _moments(values: torch.Tensor, mask: torch.Tensor, accelerator: Accelerator) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and (population) variance of the values on the mask, over all processes."""
    keep = mask.to(values.dtype)
    sums = torch.stack([keep.sum(), (values * keep).sum(), (values.square() * keep).sum()])
    count, first, second = accelerator.reduce(sums, reduction="sum")
    mean = first / count
    return mean, (second / count - mean.square()).clamp(min=0)


def _total(number: torch.Tensor, accelerator: Accelerator) -> float:
    return float(accelerator.reduce(number.to(accelerator.device), reduction="sum").item())


def _resume(run: Run, parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> int:
    """Go back to the last whole checkpoint and forget what was logged after it. Returns the updates already done."""
    if not run.resumed:
        return 0
    done = load_checkpoint(run.folder, dict(parameters), optimizer)
    run.forget_after(done)
    say(f"resuming after update {done}" if done else "no whole checkpoint yet; starting from the beginning")
    return done
