"""Proximal Policy Optimization (arXiv 1707.06347) of a language model, with rewards from people's preferences.

`PPOTrainer.train` reads as the algorithm. Every process makes its share of the rollouts, gets to know all of them, and
learns from its share of every mini-batch; gradients are added up. Randomness is a function of the seed and of what is
drawn, so neither the number of processes nor an interruption makes a difference.

Left out: FSDP and DeepSpeed, on-line sampling in another process, and models of images.
"""

import contextlib
import random
import resource
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from accelerate.utils import gather_object

from align.models.sampling import seed_of
from align.ppo.advantages import adapt_kl_coef, explained_variance, gae, kl_estimate, token_rewards, whiten
from align.ppo.config import PPOConfig
from align.ppo.learn import Learner
from align.ppo.record import Record
from align.ppo.rollout import Prompts, Rollout, make_rollouts, to_batch
from align.ppo.setup import Reward, set_up
from align.report.audit import keep_audit
from align.run.checkpoint import checkpoints, load_checkpoint, load_parameters, save_checkpoint
from align.run.disk import full_disk_is_said
from align.run.manifest import Run, check_output_folder, hash_weights, start_run
from align.run.progress import say
from align.run.stopping import Stopped, anywhere, finishing_steps
from align.run.stopping import asked as asked_to_stop
from preferences.errors import BadInput

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedTokenizerBase, TrainerCallback
    from trl import ModelConfig


class PPOTrainer:
    """PPO in TRL's style: `PPOTrainer(model, reward, args, train_dataset).train()`.

    model: a hub name, a model folder, an adapter folder (the reference is then a copy of it), or a causal model of
        transformers in memory, which reward runs don't share: it may hold other weights than its name says.
    reward: reward runs by folder, functions by "path/to/file.py:name", or functions as TRL's trainers take them:
        f(prompts, completions, **columns) -> one number, or None to abstain, a completion; sync or async. By default
        what `args` names.
    train_dataset, eval_dataset: anything that iterates over rows with a `prompt`, text or turns; by default what `args`
        names.
    peft_config: a LoraConfig; without one, and without an adapter folder, the whole model is trained.
    callbacks: transformers' TrainerCallbacks.

    Raises BadInput for whatever does not fit together, before anything is written.
    """

    def __init__(
        self,
        model: Any,
        reward: Reward | Sequence[Reward] | None = None,
        args: PPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: "PreTrainedTokenizerBase | None" = None,
        peft_config: "LoraConfig | None" = None,
        callbacks: "Sequence[TrainerCallback] | None" = None,
        *,
        model_args: "ModelConfig | None" = None,
        recipe: dict[str, Any] | None = None,
    ) -> None:
        from transformers.trainer_callback import TrainerControl, TrainerState
        from trl import ModelConfig

        if args is None:
            raise BadInput("PPOTrainer: give `args`, a PPOConfig")
        if reward is None:
            reward = [*(args.reward_model_path or []), *(args.reward_funcs or [])]
        rewards = [reward] if isinstance(reward, str) or callable(reward) else list(reward)
        self.args = args
        self.recipe = recipe or {"model_name_or_path": str(getattr(model, "name_or_path", model)), **asdict(args)}
        model_args = model_args or ModelConfig(dtype="auto", use_peft=peft_config is not None)
        setup = set_up(args, model_args, model, rewards, train_dataset, eval_dataset, processing_class, peft_config)
        self.setup = setup
        self.accelerator, self.roles, self.tokenizer = setup.accelerator, setup.roles, setup.tokenizer

        self.updates = -(-args.total_episodes // args.batch_size)
        self.learner = Learner(args, self.accelerator, self.roles, self.updates)
        self.kl_coef = args.kl_coef
        self.best: dict[str, float] | None = None  # of the held-out looks: step, scores, kl
        self.looks_since_best = 0
        self.control = TrainerControl()
        self.state = TrainerState(
            max_steps=self.updates, is_world_process_zero=self.accelerator.is_main_process, save_steps=args.save_steps
        )
        self.callbacks = list(callbacks or [])

    def train(self, *, resume: bool = False, overwrite: bool = False) -> Run:
        """Train, and leave the policy in the run folder `output_dir`. Raises BadInput; see check_output_folder."""
        check_output_folder(self.args.output_dir, "ppo", resume, overwrite)
        self.accelerator.wait_for_everyone()  # until every process has found the input right, the folder free among it
        run = start_run(
            "ppo",
            self.recipe,
            inputs=self.setup.inputs,
            parents=list(self.setup.parents),
            seed=self.args.seed,
            resume=resume,
            processes=self.accelerator.num_processes,
            writes=self.accelerator.is_main_process,
            mirror=self.args.mirror,
        )
        keep_audit(run, self.setup.audit)
        if self.args.report_to != "none":
            self.accelerator.init_trackers("concord", {k: v for k, v in self.recipe.items() if not isinstance(v, list)})
        with full_disk_is_said(run.folder), finishing_steps():
            try:
                record = self._loop(run)
            except Stopped:
                self.accelerator.end_training()
                raise
            if self.accelerator.is_main_process:
                self.save_model(str(run.folder))
            self.accelerator.wait_for_everyone()
            self.accelerator.end_training()
            facts = {"best": self.best} if self.best else {}
            run.finish(
                weights_sha256=hash_weights(run.folder),
                prompts=len(self.setup.prompts.turns),
                prompts_dropped=self.setup.prompts.dropped,
                warnings=record.told,
                **facts,
            )
        return run

    def save_model(self, folder: str | None = None) -> None:
        """Write the policy and its tokenizer as a model or adapter folder."""
        self._write_policy(Path(folder or self.args.output_dir))

    def _write_policy(self, folder: Path) -> None:
        self.roles.save_policy(folder)
        self.tokenizer.save_pretrained(str(folder))

    def _loop(self, run: Run) -> Record:
        """The algorithm."""
        args, accelerator = self.args, self.accelerator
        record = Record(run, args)
        done = self._resume(run, record)
        self._event("on_train_begin")
        if args.eval_steps is not None and done is None:
            record.log_row({"step": 0, **self._look_at_held_out(0, record)})
            self._save(run, 0, record)

        for update in range((done or 0) + 1, self.updates + 1):
            started, cpu_started = time.monotonic(), time.process_time()
            self._event("on_step_begin")

            # 1. Roll out: this process's share of the batch, then everybody's, in the batch's order.
            try:
                rollouts = self._roll_out(update)
            except Stopped:  # nothing has been learnt from them
                self._stop(run, update - 1, record)
            batch = to_batch(rollouts, accelerator.device)
            if not batch.mask.any():
                raise BadInput(
                    f"{args.output_dir}: update {update}: every reward source abstained on all {len(rollouts)}"
                    " responses; have one of them always give a number"
                )
            rolled_out = time.monotonic()

            # 2. Rewards: the score at the last token, the KL penalty at every token.
            kl = kl_estimate(batch.logprobs, batch.reference, args.kl_estimator)
            rewards = token_rewards(batch.scores, kl, batch.mask, self.kl_coef if args.kl_in == "reward" else 0.0)
            if args.whiten_rewards:
                rewards = whiten(rewards, batch.mask, shift_mean=False)

            # 3. Advantages, whitened over the whole batch; the returns are what they were before.
            advantages, returns = gae(rewards, batch.values, batch.mask, args.gamma, args.lam)
            advantages = whiten(advantages, batch.mask, shift_mean=True)

            # 4. Learn.
            told = self.learner.learn(update, rollouts, batch, advantages, returns, self.kl_coef)

            # 5. Say what happened, look at held-out prompts, keep what must not be lost.
            told |= record.describe(rollouts, batch, rewards)
            told["val/explained_variance"] = explained_variance(batch.values, returns, batch.mask)
            if args.kl_target is not None:
                episodes = len(rollouts)
                self.kl_coef = adapt_kl_coef(
                    self.kl_coef, told["objective/kl"], args.kl_target, args.kl_horizon, episodes
                )
            told |= {"episode": update * args.batch_size, "seconds_rollout": rolled_out - started}
            told |= {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu_started}
            told["peak_mb"] = _peak_mb(accelerator.device)
            self.state.global_step = update
            if args.eval_steps is not None and (update % args.eval_steps == 0 or update == self.updates):
                told |= self._look_at_held_out(update, record)
            record.log(update, self.updates, told, rollouts)
            if args.report_to != "none":
                accelerator.log(told, step=update)
            self._event("on_log", logs=told)
            self._event("on_step_end")
            # callbacks may differ by process, and not all may have got a signal
            asked: list[tuple[bool, bool]] = gather_object([(self.control.should_training_stop, asked_to_stop())])
            stop = any(by_callback for by_callback, _ in asked) or self._out_of_patience()
            due = update % args.save_steps == 0 and update < self.updates and not stop
            if due or (self.best is not None and self.best["step"] == update):
                self._save(run, update, record)  # after the log: what a checkpoint has seen is in metrics.jsonl, too
            if stop:
                break
            if any(by_signal for _, by_signal in asked) and update < self.updates:
                self._stop(run, update, record)
        self._finish(run, record)
        return record

    def _roll_out(self, update: int) -> list[Rollout]:
        """The rollouts of an update, made by all processes together and known to all."""
        args, rank, processes = self.args, self.accelerator.process_index, self.accelerator.num_processes
        order = batch_of_prompts(len(self.setup.prompts.turns), update, args.batch_size, args.seed)
        first = (update - 1) * args.batch_size
        numbers = range(rank, args.batch_size, processes)
        prompts = self.setup.prompts.take([order[number] for number in numbers])
        seeds = [seed_of(args.seed, "rollout", first + number) for number in numbers]
        return self._rollouts(prompts, numbers, seeds)

    def _rollouts(
        self, prompts: Prompts, numbers: Sequence[int], seeds: Sequence[int], *, to_the_end: bool = False
    ) -> list[Rollout]:
        """This process's rollouts, and everybody else's, in the batch's order. They may take minutes: raises Stopped in
        all processes where SIGTERM comes to one meanwhile, unless they go on `to_the_end`.
        """
        setup = self.setup
        mine: list[Rollout | None] = [None]
        with contextlib.suppress(Stopped), contextlib.nullcontext() if to_the_end else anywhere():
            mine = list(
                make_rollouts(
                    setup.roles, setup.tokenizer, setup.rewards, prompts, numbers, seeds, self.args, setup.engine
                )
            )
        everybodys: list[Rollout | None] = gather_object(mine)
        made = [rollout for rollout in everybodys if rollout is not None]
        if len(made) < len(everybodys):
            raise Stopped
        return sorted(made, key=lambda rollout: rollout.number)

    def _look_at_held_out(self, update: int, record: Record) -> dict[str, float]:
        """Score the policy on held-out prompts, and remember which was the best within the KL budget."""
        args, rank, processes = self.args, self.accelerator.process_index, self.accelerator.num_processes
        prompts: Prompts = self.setup.held_out  # type: ignore[assignment]
        numbers = range(rank, len(prompts.turns), processes)
        seeds = [seed_of(args.seed, "held-out", number) for number in numbers]
        rollouts = self._rollouts(prompts.take(numbers), numbers, seeds, to_the_end=update > 0)
        look = record.describe_held_out(rollouts)
        better = self.best is None or look["eval/scores"] > self.best["scores"]
        if better and (args.kl_budget is None or look["eval/kl"] <= args.kl_budget):
            self.best = {"step": update, "scores": look["eval/scores"], "kl": look["eval/kl"]}
            self.looks_since_best = 0
        else:
            self.looks_since_best += 1
        say(
            f"held-out at update {update}: score {look['eval/scores']:+.3f}  KL {look['eval/kl']:.2f}"
            + ("  (the best so far)" if self.best and self.best["step"] == update else "")
        )
        self._event("on_evaluate", metrics=look)
        return look

    def _out_of_patience(self) -> bool:
        stop = self.args.patience is not None and self.looks_since_best >= self.args.patience
        if stop:
            say(f"stopping: no new best in {self.looks_since_best} looks at held-out prompts")
        return stop

    def _save(self, run: Run, update: int, record: Record) -> None:
        """Write a whole checkpoint, which is a model folder, too, and keep the best one beside it."""
        if self.accelerator.is_main_process:
            state: dict[str, Any] = {"kl_coef": self.kl_coef, "best": self.best, "warnings": record.told}
            state["looks_since_best"] = self.looks_since_best
            keep = [int(self.best["step"])] if self.best else []
            parameters, limit = dict(self.learner.parameters), self.args.save_total_limit
            optimizer, write = self.learner.optimizer, self._write_policy
            processes = self.accelerator.num_processes
            save_checkpoint(run.folder, update, parameters, optimizer, state, keep, limit, write, processes)
            record.draw(self.best)
            run.copy_checkpoint(run.folder / f"checkpoint-{update}")
        self._event("on_save")

    def _stop(self, run: Run, update: int, record: Record) -> NoReturn:
        """Leave the run so that it can go on after an update that is done."""
        if update not in dict(checkpoints(run.folder)):
            self._save(run, update, record)
        self.accelerator.wait_for_everyone()
        raise Stopped

    def _resume(self, run: Run, record: Record) -> int | None:
        """Go back to the last whole checkpoint and forget what was logged after it. The updates already done; None
        where the run is at its very start, before the first look at held-out prompts.
        """
        if not run.resumed:
            return None
        done, state = load_checkpoint(run.folder, dict(self.learner.parameters), self.learner.optimizer)
        record.forget_after(done if state else -1)
        if not state:
            say("no whole checkpoint yet; starting from the beginning")
            return None
        self.kl_coef, self.best = state["kl_coef"], state["best"]
        self.looks_since_best, record.told = state["looks_since_best"], state["warnings"]
        self.learner.go_on_after(done)
        self.state.global_step = done
        say(f"resuming after update {done}")
        return done

    def _finish(self, run: Run, record: Record) -> None:
        """Go back to the best policy where held-out prompts were looked at, and draw the curves."""
        if self.best is not None and int(self.best["step"]) != self.state.global_step:
            self.accelerator.wait_for_everyone()
            load_parameters(run.folder, int(self.best["step"]), dict(self.learner.parameters))
            say(
                f"going back to update {int(self.best['step'])}, the best on held-out prompts: score"
                f" {self.best['scores']:+.3f} at a KL of {self.best['kl']:.2f}"
            )
        record.draw(self.best)
        self._event("on_train_end")

    def _event(self, name: str, **more: Any) -> None:
        """Tell the callbacks, as transformers' Trainer does."""
        for callback in self.callbacks:
            answer = getattr(callback, name)(
                self.args,
                self.state,
                self.control,
                model=self.roles.policy,
                processing_class=self.tokenizer,
                optimizer=self.learner.optimizer,
                lr_scheduler=self.learner.scheduler,
                **more,
            )
            self.control = answer or self.control


def batch_of_prompts(count: int, update: int, batch_size: int, seed: int) -> list[int]:
    """The prompt numbers of an update (from 1): epochs of seeded permutations laid end to end, cut into batches."""
    numbers: list[int] = []
    for episode in range((update - 1) * batch_size, update * batch_size):
        epoch, place = divmod(episode, count)
        if not numbers or place == 0:
            order = list(range(count))
            random.Random(seed_of(seed, "prompts", epoch)).shuffle(order)
        numbers.append(order[place])
    return numbers


def _peak_mb(device: torch.device) -> float:
    """The most memory so far: the GPU's, or this process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def run_ppo(recipe: dict[str, Any], where: str, *, resume: bool = False, overwrite: bool = False) -> None:
    """`align ppo`: train a policy by a recipe. Raises BadInput before anything is written."""
    from trl import ModelConfig

    from align.config import parse

    recipe = {"dtype": "auto", **recipe}  # TRL's default is fp32, whatever the GPU
    args, model_args = parse(recipe, (PPOConfig, ModelConfig), where)
    if not model_args.model_name_or_path:
        raise BadInput(f"{where}: the key `model_name_or_path` is missing; name a hub model or a model folder")
    check_output_folder(args.output_dir, "ppo", resume, overwrite)
    trainer = PPOTrainer(model_args.model_name_or_path, args=args, model_args=model_args, recipe=recipe)
    trainer.train(resume=resume, overwrite=overwrite)
