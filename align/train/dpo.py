"""`align dpo`: Direct Preference Optimization (arXiv 2305.18290), by TRL's DPOTrainer.

The losses `sigmoid`, `ipo` and `hinge` are ours, since TRL's take every row as certain and equal: they use the
probability, the weight and the strength that a row has, and ties; on rows that are certain and equal they are TRL's
(docs/losses.md). TRL's other losses are TRL's own, unchanged, and take certain and equal rows only.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.data.lengths import check_pairs
from align.data.load import load_pairs, mean_one, said_of
from align.models.load import load_causal_lm
from align.run.progress import say
from align.train.common import Job, audited, held_out, lora_config, make_trainer, read_job
from align.train.even import real_rows, row_share
from align.train.reward import check_strength_margin
from align.train.running import train
from preferences.contract import is_preferences_folder
from preferences.errors import BadInput

if TYPE_CHECKING:
    from datasets import Dataset

_OURS = {"sigmoid", "ipo", "hinge"}
_FACTS = ("preference", "weight", "margin")  # columns of a batch, (pairs,) each, besides TRL's


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

    if not why_trl:
        job.args.remove_unused_columns = False  # else TRL drops the columns of our losses
    trainer = make_trainer(
        _trainer_class(ours=why_trl is None),
        job,
        model,
        train_dataset=pairs,
        eval_dataset=evaluation,
        peft_config=peft_config,
    )
    facts = {} if why_trl else {"ties": sum(preference == 0.5 for preference in pairs["preference"])}
    train(trainer, job, pairs=len(pairs), pairs_cut=cut, **facts)


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
    """TRL's collator, and the columns of our losses."""

    def __init__(self, trls: Any) -> None:
        self.trls = trls

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        facts = {name: torch.tensor([row[name] for row in rows], dtype=torch.float32) for name in _FACTS}
        return {**self.trls(rows), **facts}


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

    from align.train.losses import bradley_terry, hinge, ipo, smoothed
    from align.train.progress import Means

    class SoftDPOTrainer(DPOTrainer):
        weighs_rows = True  # see align/train/even.py

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.data_collator: Any = _Collator(self.data_collator)
            self.means = Means()

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            given = {name: value for name, value in inputs.items() if name not in _FACTS}
            mask = given["completion_mask"]
            labels = given["input_ids"].masked_fill(mask == 0, -100)
            # 1. how likely the policy and the reference hold the responses: chosen first, then rejected
            router = {"output_router_logits": True} if self.aux_loss_enabled else {}  # mixtures of experts
            outputs = model(
                input_ids=given["input_ids"],
                attention_mask=given["attention_mask"],
                labels=labels,
                fused_lm_head=True,
                use_cache=False,
                **router,
            )
            seen = mask[:, 1:]
            token_logps = outputs.log_probs[:, -seen.shape[1] :]
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
                loss = loss + self.router_aux_loss_coef * outputs.aux_loss
            # 3. what is logged, under TRL's names
            with torch.no_grad():
                real = real_rows(inputs)
                rewards = self.beta * chosen_ratio, self.beta * rejected_ratio
                self._note(*(column[real] for column in (inputs["preference"], chosen, rejected, *rewards)))
                tokens = torch.stack(seen.chunk(2), 1)[real]  # (rows, 2, n)
                entropy = torch.stack(outputs.entropy[:, -seen.shape[1] :].chunk(2), 1)[real]
                self.means.add(self, {"entropy": ((entropy * tokens).sum(), tokens.sum())})
            return (loss, outputs) if return_outputs else loss

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
