"""`align rloo` and `align grpo`: policy gradients against a baseline from other responses to the same prompt, without a
value model, by TRL's RLOOTrainer (arXiv 2402.14740) and GRPOTrainer (arXiv 2402.03300).

Prompts and rewards are those of `align ppo`: the same keys mean the same numbers.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.data.lengths import prompts_that_fit
from align.data.load import data_facts, load_prompt_rows
from align.models.load import find_model, load_causal_lm
from align.models.rewards import RewardArguments, Rewards, limited, load_rewards, reward_facts
from align.models.sampling import end_ids
from align.run.launch import sharded
from align.run.progress import say
from align.train.common import Job, audited, held_out, lora_config, make_trainer, read_job
from align.train.running import train
from preferences.errors import BadInput

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

Rows = list[dict[str, Any]]

# Keys of TRL's that would not do here what they say.
_REFUSED = {
    "reward_clip_range": "use `score_clip: X`, which keeps scores within ± X, as in PPO",
    "multi_objective_aggregation": "the sources of reward become one score before TRL sees it; weigh them by"
    " `reward_weights`",
    "log_completions_hub_repo": "Concord never uploads",
}


@dataclass(kw_only=True)
class OnlineArguments(RewardArguments):
    """The keys of PPO that TRL does not have."""

    eval_dataset_name: str | None = None  # where held-out prompts are; None: in `dataset_name`, another split
    max_prompt_length: int | None = None  # longer prompts are left out, and counted; None: what the context allows
    score_clip: float | None = None  # scores are kept within ± this
    missing_eos_penalty: float | None = None  # taken off the score of a response that did not end by itself

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_prompt_length is not None and self.max_prompt_length < 1:
            raise ValueError(f"key `max_prompt_length`: {self.max_prompt_length} is less than 1")
        if self.score_clip is not None and not self.score_clip > 0:
            raise ValueError(f"key `score_clip`: {self.score_clip} is not a number above 0")


def run_online(verb: str, recipe: dict[str, Any], where: str, *, resume: bool = False, overwrite: bool = False) -> None:
    """Train a policy by "rloo" or "grpo". The reference is the model as it is before training, as in PPO.
    Raises BadInput before anything is written.
    """
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    config, trainer_class = (RLOOConfig, RLOOTrainer) if verb == "rloo" else (GRPOConfig, GRPOTrainer)
    for key, reason in _REFUSED.items():
        if key in recipe:
            raise BadInput(f"{where}: key `{key}`: {reason}")
    recipe = {"disable_dropout": True, **recipe}  # the policy that is sampled from is the one that is learnt, as in PPO
    job = read_job(verb, recipe, where, config, resume, overwrite, OnlineArguments)
    online: OnlineArguments = job.own[0]
    data = job.data
    _check(job)

    rows, dropped = _prompts(job, data.dataset_name, data.dataset_train_split)
    at_once = job.args.generation_batch_size // job.args.num_generations
    if len(rows) < at_once:  # TRL would train on nothing
        raise BadInput(
            f"{data.dataset_name}: {len(rows)} prompts, and responses to {at_once} are made at once; give more"
            " prompts, or a smaller per_device_train_batch_size or gradient_accumulation_steps, or more num_generations"
        )
    looked_at = (
        held_out(job, lambda split: _prompts(job, online.eval_dataset_name or data.dataset_name, split)[0]) or []
    )

    job = audited(job, "prompts", online.max_prompt_length, online.eval_dataset_name)
    adapters = job.source.adapter or job.model_args.use_peft
    rewards = load_rewards(
        online,
        job.args.device,
        job.args.per_device_train_batch_size,
        job.source if adapters else None,
        job.model_args,
    )
    few = rows[:2]
    rewards([row["prompt"] for row in few], ["Yes.", "No."][: len(few)], _columns(few))  # what fails, fails now
    peft_config = lora_config(job, "CAUSAL_LM")
    model = load_causal_lm(job.source, job.model_args, trainable=True)

    job.args.reward_weights = None  # said to `rewards`; for TRL that is one function
    if job.source.revision and not adapters:
        job.args.model_init_kwargs = {"revision": job.source.revision}  # of the reference, which TRL loads itself
    ends = set(end_ids(model, job.tokenizer))
    trainer = make_trainer(
        trainer_class,
        job,
        model,
        reward_funcs=reward_function(rewards, [*rows, *looked_at], job.tokenizer, ends, online),
        train_dataset=_numbered(rows, 0),
        eval_dataset=_numbered(looked_at, len(rows)) if looked_at else None,
        peft_config=peft_config,
    )
    trainer.add_callback(_watcher(job))
    # TRL would print the row of whatever is not scored, at every step
    logging.getLogger(trainer_class.__module__).addFilter(lambda record: "returned None" not in str(record.msg))
    inputs = reward_facts([find_model(name) for name in online.reward_model_path or ()], online.reward_funcs or ())
    if online.eval_dataset_name:
        inputs["eval_dataset"] = data_facts(online.eval_dataset_name)
    train(trainer, job._replace(inputs=inputs), prompts=len(rows), prompts_dropped=dropped)


def reward_function(
    rewards: Rewards, rows: Rows, tokenizer: "PreTrainedTokenizerBase", ends: set[int], args: OnlineArguments
) -> Any:
    """What TRL's trainers call for the reward: scores as PPO gives them. ends: the tokens that end a response.

    Its data set has a prompt and the number of its row, `row`, and nothing else: so reward functions see the row's
    columns as they are, and no column's name means something to TRL.
    """

    def concord(
        prompts: Any, completions: Any, completion_ids: list[list[int]], row: list[int], log_metric: Any, **more: Any
    ) -> list[float | None]:
        ended = [ids[-1] in ends for ids in completion_ids]
        spoken = [ids[:-1] if end else ids for ids, end in zip(completion_ids, ended, strict=True)]
        texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in spoken]
        given = [rows[number] for number in row]
        worth = rewards([one["prompt"] for one in given], texts, _columns(given))
        for name, part in worth.parts.items():
            known = [score for score in part if score is not None]
            if known:
                log_metric(f"rewards/{name}/mean", sum(known) / len(known))
        log_metric("completions/abstained", sum(score is None for score in worth.total) / len(texts))
        final = partial(limited, clip=args.score_clip, penalty=args.missing_eos_penalty)
        return [final(score, end) for score, end in zip(worth.total, ended, strict=True)]

    return concord


def _check(job: Job) -> None:
    """Raise BadInput for settings that would do something else than they say."""
    from align.train.keeping import rollout_steps

    args, online, name = job.args, job.own[0], job.data.dataset_name
    if online.reward_model_path and (kind := sharded()):
        raise BadInput(f"every process holds a reward run whole, which does not go with {kind}; take multi_gpu")
    if args.eval_strategy != "no" and not online.eval_dataset_name and Path(name).is_file():
        raise BadInput(
            f"key `eval_strategy`: {name} is one file without a held-out split; name another in `eval_dataset_name`"
        )
    steps = rollout_steps(args)
    for key, counts in (
        ("save_steps", args.save_strategy == "steps"),
        ("eval_steps", args.eval_strategy == "steps" and args.metric_for_best_model is not None),  # the best is saved
    ):
        if counts and getattr(args, key) % steps:
            raise BadInput(
                f"{job.where}: key `{key}`: {getattr(args, key)} is not a multiple of {steps}, the steps that learn"
                " from responses made at once (steps_per_generation, num_iterations); --resume would not end where it"
                " should"
            )


def _prompts(job: Job, name: str, split: str) -> tuple[Rows, int]:
    """The rows whose prompts leave room for a response, each prompt once, and how many others there are."""
    new_tokens = job.args.max_completion_length
    if new_tokens is None or new_tokens < 1:
        raise BadInput(f"{job.where}: key `max_completion_length`: say how many new tokens a response has at most")
    rows = load_prompt_rows(name, split, job.data.dataset_config)
    longest = job.own[0].max_prompt_length
    prompts = [row["prompt"] for row in rows]
    fitting = prompts_that_fit(job.tokenizer, prompts, new_tokens, job.context, longest, f"{name}, {split}")
    dropped = len(rows) - len(fitting)
    if dropped:
        say(f"{name}, {split}: {dropped} of {len(rows)} prompts are too long and left out")
    return [rows[number] for number in fitting], dropped


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    return {key: [row.get(key) for row in rows] for key in rows[0] if key != "prompt"}


def _numbered(rows: Rows, first: int) -> "Dataset":
    from datasets import Dataset

    return Dataset.from_dict({"prompt": [row["prompt"] for row in rows], "row": range(first, first + len(rows))})


def _watcher(job: Job) -> Any:
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if args.log_completions:  # TRL makes it before the run folder is opened, which takes it away
                (Path(args.output_dir) / "completions").mkdir(exist_ok=True)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "reward" in (logs or {}) and logs["reward"] is None:
                raise BadInput(
                    f"{args.output_dir}: step {state.global_step}: every reward source abstained on all responses;"
                    " have one of them always give a number"
                )

    return Watcher()
