"""What a PPO run needs before its first update, all of it checked: nothing is written here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from align.audit.audit import audit_for_training
from align.data.lengths import context_length, prompts_that_fit
from align.data.load import check_test_split, data_facts, load_prompt_rows, looked_at, prompt_rows
from align.models.chain import check_parent, check_same_tokenizer, stage_facts
from align.models.engines import VLLM, continuous_batching
from align.models.load import ModelSource, completed, find_model, load_config, load_tokenizer, whole_config
from align.models.rewards import Rewards, load_function, reward_facts
from align.models.roles import Roles, load_roles, stands_on
from align.models.sampling import Engine
from align.models.text import lora_of
from align.ppo.config import PPOConfig
from align.ppo.rollout import Prompts
from align.run.launch import check_strategy
from align.run.manifest import parents_of
from align.run.progress import say
from align.run.strategies import asked_strategy, kind_of, refuse
from preferences.errors import BadInput

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedTokenizerBase
    from trl import ModelConfig

Reward = str | Callable[..., Any]


@dataclass
class Setup:
    """Everything that the loop works with."""

    args: PPOConfig
    accelerator: Accelerator
    tokenizer: "PreTrainedTokenizerBase"
    prompts: Prompts
    held_out: Prompts | None
    roles: Roles
    rewards: Rewards
    engine: Engine | None  # that samples; None: transformers' generate
    inputs: dict[str, dict[str, Any]]  # for the manifest: what the run was made from, with hashes
    parents: list[str] = field(default_factory=list)  # run folders among them
    audit: dict[str, Any] | None = None  # of the prompts, in the main process


def set_up(
    args: PPOConfig,
    model_args: "ModelConfig",
    model: Any,
    rewards: Sequence[Reward],
    train_dataset: Any = None,
    eval_dataset: Any = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    peft_config: "LoraConfig | None" = None,
) -> Setup:
    """Load the data, the roles and the rewards. Raises BadInput for whatever does not fit together."""
    in_memory = None if isinstance(model, str) else model
    source = find_model(model) if isinstance(model, str) else _source_of(model)
    refuse("ppo", kind_of(model_args, bool(source.adapter or peft_config)), asked_strategy())
    trackers = None if args.report_to == "none" else args.report_to
    try:
        accelerator = Accelerator(
            cpu=args.use_cpu or not torch.cuda.is_available(),
            log_with=trackers,
            project_dir=args.output_dir,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=args.ddp_timeout))],
        )
    except ValueError as error:
        raise BadInput(f"key `report_to`: {' '.join(str(error).split())}") from None
    check_strategy(accelerator)
    if args.batch_size % accelerator.num_processes:
        raise BadInput(
            f"key `batch_size`: {args.batch_size} does not divide into {accelerator.num_processes} processes"
        )
    source = source._replace(revision=model_args.model_revision) if model_args.model_revision else source
    if (model_args.load_in_4bit or model_args.load_in_8bit) and not (source.adapter or model_args.use_peft):
        raise BadInput("a model in 4 or 8 bits can't be trained whole; add `use_peft: true`")
    adapters = bool(source.adapter or model_args.use_peft or peft_config)
    if adapters and not args.use_reference:
        raise BadInput("key `use_reference`: with adapters the reference costs no memory; leave it on")
    if source.adapter and (model_args.use_peft or peft_config):
        say(f"training goes on with the adapter in {source.adapter}; the recipe's lora_* keys are not used")

    tokenizer = load_tokenizer(source) if tokenizer is None else completed(tokenizer, source.name)
    for token in args.stop_tokens or ():
        if len(tokenizer.encode(token, add_special_tokens=False)) != 1:
            raise BadInput(f"key `stop_tokens`: {token!r} is not one token of {source.name}'s vocabulary")
    room = context_length(load_config(source) if in_memory is None else in_memory.config.get_text_config())
    runs = [find_model(str(reward)) for reward in rewards if isinstance(reward, str) and ".py:" not in reward]
    prompts = _prompts(args, args.dataset_name, args.dataset_train_split, train_dataset, tokenizer, room, runs)
    held_out = None
    if args.eval_steps is not None:
        if eval_dataset is None and args.eval_dataset_name is None and Path(args.dataset_name or ".").is_file():
            raise BadInput(
                f"key `eval_steps`: {args.dataset_name} is one file without a held-out split; name another in"
                " `eval_dataset_name`"
            )
        train, test, name = args.dataset_train_split, args.dataset_test_split, args.eval_dataset_name
        if train_dataset is None and eval_dataset is None and name in (None, args.dataset_name):
            check_test_split(train, test)
        name = name or args.dataset_name
        held_out = looked_at(
            train,
            test,
            "`eval_steps: null`",
            lambda split: _prompts(args, name, split, eval_dataset, tokenizer, room, runs),
        )
        held_out = held_out.take(range(min(args.eval_prompts, len(held_out.turns))))

    audit = None
    if args.dataset_name and train_dataset is None:
        looks = args.eval_steps is not None and eval_dataset is None
        audit = audit_for_training(
            args.dataset_name,
            "prompts",
            config=args.dataset_config,
            splits=[
                args.dataset_train_split,
                *([args.dataset_test_split] if looks and not args.eval_dataset_name else []),
            ],
            evaluated_on=args.eval_dataset_name if looks else None,
            tokenizer=tokenizer,
            limit=room and room - args.response_length,
            allow=args.allow,
        )

    functions = [load_function(r) if isinstance(r, str) else r for r in rewards if callable(r) or ".py:" in str(r)]
    if in_memory is None:
        check_parent(source)
    for run in runs:
        check_parent(run)
        if adapters and in_memory is None and stands_on(run, source):
            check_same_tokenizer(source, tokenizer, run, load_tokenizer(run))
        if run.adapter and adapters and (in_memory is not None or not stands_on(run, source)):
            say(f"the reward run {run.name} stands on {run.base}: it is loaded as a model of its own")
    config = whole_config(source) if in_memory is None else in_memory.config
    torch.manual_seed(args.seed)
    roles, scorers = load_roles(
        source,
        runs,
        model_args,
        peft_config or lora_of(model_args, config, "CAUSAL_LM"),
        accelerator.device,
        shared_value=args.value == "shared",
        use_reference=args.use_reference,
        model=in_memory,
        tokenizer=tokenizer,
    )
    combined = Rewards(
        scorers,
        functions,
        weights=args.reward_weights,
        ensemble=args.ensemble,
        std_coef=args.ensemble_std_coef,
        normalize=args.normalize_scores,
        batch_size=args.per_device_train_batch_size,
    )
    if runs and not roles.shared:  # the value model starts as the first reward run: from its units to the score's
        roles.value_head.weight.data.mul_(combined.weights[0] / combined.moments[0][1])
    engine: Engine | None = None
    if args.rollout_engine == "continuous":
        engine = continuous_batching
    elif args.rollout_engine == "vllm":
        engine = VLLM(roles.policy, accelerator, tokenizer, args.per_device_rollout_batch_size)
    few = prompts.take(range(min(2, len(prompts.turns))))
    combined(few.turns, ["Yes.", "No."][: len(few.turns)], few.columns)  # a function that fails fails before anything
    inputs: dict[str, dict[str, Any]] = {"model": stage_facts(source, tokenizer)}
    inputs |= reward_facts(runs, [reward for reward in rewards if isinstance(reward, str) and ".py:" in reward])
    for role, data in (("dataset", args.dataset_name), ("eval_dataset", args.eval_dataset_name)):
        if data:
            inputs[role] = data_facts(data)
    named = [source.name, *(run.name for run in runs), *([args.dataset_name] if args.dataset_name else [])]
    return Setup(
        args, accelerator, tokenizer, prompts, held_out, roles, combined, engine, inputs, parents_of(named), audit
    )


def _prompts(
    args: PPOConfig,
    name: str | None,
    split: str,
    dataset: Any,
    tokenizer: "PreTrainedTokenizerBase",
    context: int | None,
    runs: Sequence[ModelSource],
) -> Prompts:
    """The prompts that leave room for a response, in the policy's context and in the reward runs', each once.

    Raises BadInput when there is none.
    """
    if dataset is None and name is None:
        raise BadInput("no prompts: the key `dataset_name` is missing")
    name = name or "the data set"
    rows = load_prompt_rows(name, split, args.dataset_config) if dataset is None else prompt_rows(list(dataset), name)
    where = f"{name}, {split}" if dataset is None else name
    fitting = prompts_that_fit(
        tokenizer, [row["prompt"] for row in rows], args.response_length, context, args.max_prompt_length, where
    )
    kept = [rows[number] for number in fitting]
    for run in runs:  # which read the end of the turn, too, and perhaps by another tokenizer
        its_own = load_tokenizer(run)
        tokens = args.response_length * (1 if its_own.get_vocab() == tokenizer.get_vocab() else 2)
        turns = [[*row["prompt"], {"role": "assistant", "content": ""}] for row in kept]
        limit = context_length(load_config(run))
        kept = [kept[n] for n in prompts_that_fit(its_own, turns, tokens, limit, None, f"{where}, for {run.name}")]
    if len(kept) < len(rows):
        say(f"{where}: {len(rows) - len(kept)} of {len(rows)} prompts are too long and left out")
    columns = {key: [row.get(key) for row in kept] for key in kept[0] if key != "prompt"}
    return Prompts([row["prompt"] for row in kept], columns, len(rows) - len(kept))


def _source_of(model: Any) -> ModelSource:
    """Where a model in memory says it came from."""
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise BadInput(
            f"model: a {type(model).__name__}; give the name or folder of a model, the folder of an adapter, or a"
            " causal language model of transformers"
        )
    name = str(model.name_or_path or "a model in memory")
    return ModelSource(name, name, None)
