"""`align dpo`: Direct Preference Optimization (arXiv 2305.18290), by TRL's DPOTrainer.

The losses `sigmoid`, `ipo` and `hinge` are ours, since TRL's take every row as certain and equal: they use the
probability, the weight and the strength that a row has, and ties; on rows that are certain and equal they are TRL's
(docs/losses.md). Chosen and rejected share the pass of their prompt, and what the reference holds of them is computed
once. TRL's other losses are TRL's own, unchanged, and take certain and equal rows only.
"""

from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.data.lengths import check_pairs, comes_to_each_row
from align.data.load import load_pairs, mean_one, said_of
from align.models.load import load_causal_lm
from align.run.launch import sharded, strategy_of
from align.run.progress import say
from align.train.common import Job, audited, held_out, lora_config, make_trainer, read_job, reference
from align.train.even import real_rows, row_share
from align.train.reference import Text, computed_once, for_layout, texts_of, weights_hash
from align.train.reward import check_strength_margin
from align.train.running import train
from align.train.sharing import Sharing
from preferences.contract import is_preferences_folder
from preferences.errors import BadInput

if TYPE_CHECKING:
    from datasets import Dataset

_OURS = {"sigmoid", "ipo", "hinge"}
_FACTS = ("preference", "weight", "margin")  # columns of a batch, (pairs,) each, besides TRL's
_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")  # TRL's, of what the reference holds of a row
_TRIED = 16  # rows, of which the shortest and the longest are looked at with a shared prompt and without


@dataclass
class DPOLossArguments:
    """The key of a DPO recipe besides TRL's; docs/losses.md has the formulas."""

    strength_margin: float = field(
        default=0.0, metadata={"help": "difference of implicit rewards asked for by one step of strength"}
    )

    def __post_init__(self) -> None:
        check_strength_margin(self.strength_margin)


def run_dpo(recipe: dict[str, Any], where: str, *, resume: bool = False, overwrite: bool = False) -> None:
    """Train a policy on preference pairs. The reference is the model as it is before training: the base, or, when
    training goes on with an adapter, a frozen copy of that adapter. Raises BadInput before anything is written.
    """
    from trl import DPOConfig

    job = read_job("dpo", recipe, where, DPOConfig, resume, overwrite, DPOLossArguments)
    why_trl = _why_trls_loss(job)
    pairs = _pairs(job, job.data.dataset_train_split, why_trl)
    cut = check_pairs(job.tokenizer, pairs, job.args.max_length, job.context, job.data.dataset_name)
    if cut:
        say(f"{cut} of {len(pairs)} pairs are longer than max_length {job.args.max_length} and will be cut")
    evaluation = held_out(job, lambda split: _pairs(job, split, why_trl))
    job = audited(job, "pairs", job.args.max_length)
    peft_config = lora_config(job, "CAUSAL_LM")
    model = load_causal_lm(job.source, job.model_args, trainable=True)

    once = why_trl is None and _reference_once(job.args, len(pairs))
    if not why_trl:
        job.args.remove_unused_columns = False  # else TRL drops the columns of our losses
        job.args.precompute_ref_log_probs |= once
    trainer = make_trainer(
        _trainer_class(ours=why_trl is None),
        job,
        model,
        train_dataset=pairs,
        eval_dataset=evaluation,
        peft_config=peft_config,
        ref_model=None if once else reference(job),
    )
    if once and _COLUMNS[0] not in trainer.train_dataset.column_names:
        trainer.compute_reference(job.source, job.model_args)
    facts = {} if why_trl else {"ties": sum(preference == 0.5 for preference in pairs["preference"])}
    train(trainer, job, pairs=len(pairs), pairs_cut=cut, **facts)


def _reference_once(args: Any, rows: int) -> bool:
    """Whether the reference looks at all rows before training, and not at those of a batch beside the policy: where a
    run comes to each row at least once, and its model is whole in every process.
    """
    if sharded() or args.sync_ref_model:
        return False
    return bool(args.precompute_ref_log_probs) or comes_to_each_row(args, rows, args.world_size)


def _why_trls_loss(job: Job) -> str | None:
    """The key of the recipe that only TRL's own loss knows, or None. Raises BadInput where ours is asked for, too."""
    args = job.args
    others = [name for name in args.loss_type if name not in _OURS]
    keys = {
        f"loss_type: {', '.join(others)}": bool(others),
        f"f_divergence_type: {args.f_divergence_type}": args.f_divergence_type != "reverse_kl",
        f"ld_alpha: {args.ld_alpha}": args.ld_alpha is not None,
        "use_weighting: true": args.use_weighting,
    }
    why = next((key for key, given in keys.items() if given), None)
    if why and job.own[0].strength_margin:
        raise BadInput(f"{job.where}: `strength_margin` does nothing with `{why}`; take one of the two out")
    if not why and not 0 <= args.label_smoothing < 0.5:
        raise BadInput(f"{job.where}: key `label_smoothing`: {args.label_smoothing} is not in [0, 0.5)")
    return why


def _pairs(job: Job, split: str, why_trl: str | None) -> "Dataset":
    """A split's pairs, with ties and the columns of our losses where those are used. Raises BadInput."""
    name = job.data.dataset_name
    pairs = load_pairs(name, split, job.data.dataset_config, ties=why_trl is None)
    said = [said_of(row, f"{name}, row {number}") for number, row in enumerate(pairs, start=1)]
    if why_trl:
        for number, (preference, weight, _) in enumerate(said, start=1):
            if preference != 1 or weight != 1:
                folder = is_preferences_folder(Path(name).expanduser())
                certain = f"make them so: `align convert {name} certain --to trl`, and dataset_name: certain"
                raise BadInput(
                    f"{name}, row {number}: preference {preference:g} and weight {weight:g}, and `{why_trl}` takes"
                    " every row for certain; use loss_type sigmoid, ipo or hinge without it, or "
                    + (certain if folder else "take the columns `preference` and `weight` out")
                )
        return pairs
    pairs = pairs.remove_columns([column for column in _FACTS if column in pairs.column_names])
    columns = {
        "preference": [preference for preference, _, _ in said],
        "weight": mean_one([weight for _, weight, _ in said], name),
        "margin": [job.own[0].strength_margin * strength for _, _, strength in said],
    }
    for column, values in columns.items():
        pairs = pairs.add_column(column, values)
    return pairs


class _Collator:
    """TRL's collator, and the columns of our losses, and (`shares`) the texts laid out with shared prompts."""

    shares = False

    def __init__(self, trls: Any) -> None:
        self.trls = trls

    def texts(self, row: dict[str, Any]) -> tuple[Text, Text]:
        return texts_of(row, self.trls.max_length, self.trls.truncation_mode)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        from align.models.shared_prompts import lay_out

        batch = self.trls(rows)
        for name in _FACTS:
            batch[name] = torch.tensor([row[name] for row in rows], dtype=torch.float32)
        if self.shares:
            chosen, rejected = zip(*map(self.texts, rows), strict=True)
            batch["shared"] = lay_out(*for_layout([*chosen, *rejected]))
        return batch


def _placeholder() -> Any:
    """A model that keeps TRL from loading a reference."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 2, "intermediate_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=2, bos_token_id=None, eos_token_id=None, **sizes))


def _trainer_class(*, ours: bool) -> Any:
    """DPOTrainer, with our loss where asked; made here because importing TRL takes seconds.

    TRL has all its losses in one private method, so there is no hook for a loss alone. Ours overrides the public
    `compute_loss`, and takes the reference from the public `compute_ref_log_probs`, which knows a reference model, a
    frozen adapter and the base under an adapter.
    """
    from trl import DPOTrainer

    if not ours:
        return DPOTrainer
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from align.models.shared_prompts import lay_out
    from align.train.losses import bradley_terry, hinge, ipo, smoothed
    from align.train.progress import Means

    class SoftDPOTrainer(DPOTrainer):
        weighs_rows = True  # see align/train/even.py

        train_dataset: Any
        eval_dataset: Any
        data_collator: Any

        def __init__(self, *, args: Any, **kwargs: Any) -> None:
            once = args.precompute_ref_log_probs and not sharded()  # by us, in compute_reference
            if once:
                args.precompute_ref_log_probs = False
                if kwargs.get("peft_config") is None:
                    kwargs["ref_model"] = _placeholder()
            super().__init__(args=args, **kwargs)
            if once:
                args.precompute_ref_log_probs = self.precompute_ref_logps = True
                self.ref_model = None
            self.base_is_reference = kwargs.get("peft_config") is not None
            self.collate = _Collator(self.data_collator)  # itself, whatever is put around it
            self.data_collator = self.collate
            self.sharing = self._sharing()
            self.collate.shares = self.sharing is not None and not self.sharing.why
            self.means = Means()

        def compute_reference(self, source: Any, model_args: Any) -> None:
            """What the reference holds of every row, while the policy still is the reference, or has it below."""
            training = self.model.training
            self.model.eval()
            with self.accelerator.autocast():
                self._shares(self.model)
            with self.model.disable_adapter() if self.base_is_reference else nullcontext():
                weights = weights_hash(source, model_args, self.model, self.accelerator)
                self.train_dataset = self._with_reference(self.train_dataset, weights)
                if self.eval_dataset is not None:
                    self.eval_dataset = self._with_reference(self.eval_dataset, weights)
            self.model.train(training)

        def _with_reference(self, rows: Any, weights: str | None) -> Any:
            tokens = rows.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"])

            @lru_cache(maxsize=self.args.per_device_train_batch_size)
            def pair(number: int) -> tuple[Text, Text]:
                return self.collate.texts(tokens[number])

            at_once = self.args.precompute_ref_batch_size or self.args.per_device_train_batch_size
            held = computed_once(
                2 * len(rows),
                lambda number: pair(number // 2)[number % 2],
                self._total_logprobs,
                weights,
                self.accelerator,
                2 * at_once,
            )
            for side, column in enumerate(_COLUMNS):
                rows = rows.add_column(column, held[side::2])
            return rows

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            shared = inputs["shared"].to(self.accelerator.device) if self._shares(model) else None
            given = {name: value for name, value in inputs.items() if name not in (*_FACTS, "shared")}
            mask = given["completion_mask"]
            # 1. how likely the policy and the reference hold the responses: chosen first, then rejected
            token_logps, entropy, seen, aux_loss = self._look(model, shared, given)
            chosen, rejected = token_logps.sum(1).chunk(2)
            if self.precompute_ref_logps:
                chosen_ref, rejected_ref = given["ref_chosen_logps"], given["ref_rejected_logps"]
            else:
                chosen_ref, rejected_ref = self.compute_ref_log_probs(self.ref_model or self.model, given)
            # 2. the losses, each on the log ratios of policy to reference
            chosen_ratio, rejected_ratio = chosen - chosen_ref, rejected - rejected_ref
            chosen_length, rejected_length = mask.sum(1).clamp(min=1).chunk(2)
            a_token = chosen_ratio / chosen_length - rejected_ratio / rejected_length
            reward = self.beta * (chosen_ratio - rejected_ratio)
            preference, margin = smoothed(inputs["preference"], self.label_smoothing), inputs["margin"]
            losses = {
                "sigmoid": lambda: bradley_terry(reward, preference, margin),
                "hinge": lambda: hinge(reward, preference, margin),
                "ipo": lambda: ipo(a_token, preference, self.beta, margin),
            }
            weight = inputs["weight"] * row_share(self, inputs)
            loss = sum(
                share * (weight * losses[name]()).mean()
                for name, share in zip(self.loss_types, self.loss_weights, strict=True)
            )
            if self.aux_loss_enabled:
                loss = loss + self.router_aux_loss_coef * aux_loss
            # 3. what is logged, under TRL's names
            with torch.no_grad():
                real = real_rows(inputs)
                rewards = self.beta * chosen_ratio, self.beta * rejected_ratio
                self._note(*(column[real] for column in (inputs["preference"], chosen, rejected, *rewards)))
                tokens, entropy = (torch.stack(each.chunk(2), 1)[real] for each in (seen, entropy))  # (rows, 2, n)
                self.means.add(self, {"entropy": ((entropy * tokens).sum(), tokens.sum())})
            return (loss, {"log_probs": token_logps}) if return_outputs else loss

        def _look(self, model: Any, shared: Any, given: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
            """Log-probabilities of response tokens and the entropies there, (texts, n) each, zeros elsewhere; which of
            them are tokens; and the loss of a mixture of experts.
            """
            if shared is not None:
                return *model(shared=shared, entropy=True), shared.rows.mask, None
            seen = given["completion_mask"][:, 1:]
            router = {"output_router_logits": True} if self.aux_loss_enabled else {}
            outputs = model(
                input_ids=given["input_ids"],
                attention_mask=given["attention_mask"],
                labels=given["input_ids"].masked_fill(given["completion_mask"] == 0, -100),
                fused_lm_head=True,
                use_cache=False,
                **router,
            )
            token_logps, entropy = (each[:, -seen.shape[1] :] for each in (outputs.log_probs, outputs.entropy))
            return token_logps, entropy, seen, outputs.aux_loss

        def _total_logprobs(self, texts: list[Text]) -> list[float]:
            """log p(response | prompt) of each text, in nats, under the model as it is now."""
            device = self.accelerator.device
            with torch.no_grad(), self.accelerator.autocast():
                if self._shares(self.model):
                    return self._look(self.model, lay_out(*for_layout(texts)).to(device), {})[0].sum(1).tolist()
                ids = [torch.tensor(text.ids) for text in texts]
                seen = [torch.arange(len(text.ids)) >= text.start for text in texts]
                columns = {"input_ids": ids, "attention_mask": map(torch.ones_like, ids), "completion_mask": seen}
                given = {name: pad_sequence(list(each), batch_first=True).to(device) for name, each in columns.items()}
                return self._look(self.model, None, given)[0].sum(1).tolist()

        def _sharing(self) -> Sharing | None:
            # a mixture's loss of its own is about all tokens that TRL's layout has; ZeRO-3 leaves us no head to read
            if self.aux_loss_enabled or strategy_of(self.accelerator) == "zero3":
                return None
            rows = [self.train_dataset[number] for number in range(min(_TRIED, len(self.train_dataset)))]
            pairs = sorted(map(self.collate.texts, rows), key=lambda pair: len(pair[0].ids) + len(pair[1].ids))
            texts = [text for pair in dict.fromkeys((pairs[0], pairs[-1])) for text in pair]
            return Sharing(self, *for_layout(texts))

        def _shares(self, model: Any) -> bool:
            """Whether this model takes shared texts; tried the first time. To be called by all processes alike."""
            return self.sharing is not None and self.sharing.works(model)

        def _note(self, preference: Any, chosen: Any, rejected: Any, chosen_reward: Any, rejected_reward: Any) -> None:
            side = (preference > 0.5).float() - (preference < 0.5).float()  # 0 of a tie, which nobody gets right
            gain, decided, count = side * (chosen_reward - rejected_reward), side.abs().sum(), len(side)
            self.means.add(
                self,
                {
                    "rewards/accuracies": ((gain > 0).sum(), decided),
                    "rewards/margins": (gain.sum(), decided),
                    "rewards/chosen": (chosen_reward.sum(), count),
                    "rewards/rejected": (rejected_reward.sum(), count),
                    "logps/chosen": (chosen.sum(), count),
                    "logps/rejected": (rejected.sum(), count),
                },
            )

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            super().log({**logs, **self.means.take(self)}, start_time)

    return SoftDPOTrainer
