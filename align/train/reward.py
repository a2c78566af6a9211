"""`align reward`: a Bradley-Terry reward model on preference pairs, by TRL's RewardTrainer with two changes.

The loss takes what raters said as it was said: the probability that one response is better, weighted by how much its
raters can be trusted, where the data has these columns. And every response goes through the model once a pack,
however many pairs it is in.
"""

import random
from typing import TYPE_CHECKING, Any

from align.data.lengths import check_pairs, token_ids, whole_texts
from align.data.load import load_pairs
from align.data.packs import as_columns, length_chunks, pack_pairs
from align.models.load import load_reward_model
from align.run.progress import say
from align.train.common import Job, lora_config, make_trainer, read_job, train
from preferences.errors import BadInput

if TYPE_CHECKING:
    from datasets import Dataset

_SCORED = 256  # training texts, of which a run keeps the mean and the spread of their scores


def run_reward(recipe: dict[str, Any], where: str, *, resume: bool = False, overwrite: bool = False) -> None:
    """Train a scalar score such that P(chosen beats rejected) = sigmoid(score difference) (Bradley and Terry 1952).

    `per_device_train_batch_size` is in pairs, as in TRL: 2 times as many responses go through the model at once. A
    step, and so `max_steps`, is a pack of at most that many. Raises BadInput before anything is written.
    """
    from transformers import set_seed
    from trl import RewardConfig

    job = read_job("reward", recipe, where, RewardConfig, resume, overwrite)
    pairs = load_pairs(job.data.dataset_name, job.data.dataset_train_split, job.data.dataset_config)
    dropped = check_pairs(job.tokenizer, pairs, job.args.max_length, job.context, job.data.dataset_name)
    if dropped:
        say(f"{dropped} of {len(pairs)} pairs are longer than max_length {job.args.max_length} and are dropped")
    packs = _packed(pairs, job, job.args.per_device_train_batch_size)
    say(f"{len(pairs) - dropped} pairs over {sum(map(len, packs['texts']))} responses, in {len(packs)} packs")
    evaluation = None
    if job.args.eval_strategy != "no":
        held_out = load_pairs(job.data.dataset_name, job.data.dataset_test_split, job.data.dataset_config)
        evaluation = _packed(held_out, job, job.args.per_device_eval_batch_size)
    peft_config = lora_config(job, "SEQ_CLS")
    set_seed(job.args.seed)  # the head is new: its first weights come from the seed
    model = load_reward_model(job.source, job.model_args, trainable=True)

    job.args.max_length = None  # dropped above; TRL would look for its own columns
    job.args.per_device_train_batch_size = job.args.per_device_eval_batch_size = 1  # a pack is a batch
    job.args.remove_unused_columns = False
    trainer = make_trainer(
        _trainer_class(),
        job,
        model,
        data_collator=_Collator(job.tokenizer.pad_token_id),
        train_dataset=packs,
        eval_dataset=evaluation,
        peft_config=peft_config,
    )

    def after() -> dict[str, Any]:
        return {"scores": _score_moments(trainer.model, packs["texts"])}

    train(trainer, job, after, pairs=len(pairs), pairs_dropped=dropped, packs=len(packs))


def _score_moments(model: Any, packs: list[list[list[int]]]) -> dict[str, float]:
    """Mean and standard deviation of the model's scores on its training texts: Bradley-Terry leaves zero and unit open,
    so whoever puts scores of several runs together needs them (N+ details, arXiv 2403.17031).
    """
    import torch

    different = sorted({tuple(text) for pack in packs for text in pack})
    texts = random.Random(0).sample(different, min(len(different), _SCORED))
    texts.sort(key=len)
    model.eval()
    scores = []
    with torch.no_grad():
        for text in texts:
            scores.append(float(model(input_ids=torch.tensor([text], device=model.device), use_cache=False).logits))
    mean = sum(scores) / len(scores)
    spread = (sum((score - mean) ** 2 for score in scores) / len(scores)) ** 0.5
    return {"mean": mean, "std": spread, "texts": float(len(scores))}


def _packed(pairs: "Dataset", job: Job, batch_size: int) -> "Dataset":
    from datasets import Dataset

    rows = []
    for number, row in enumerate(pairs, start=1):
        chosen, rejected = (token_ids(job.tokenizer, text) for text in whole_texts(row))
        if job.args.max_length is not None and max(len(chosen), len(rejected)) > job.args.max_length:
            continue
        preference, weight = row.get("preference", 1.0), row.get("weight", 1.0)
        if preference is None or not 0 <= preference <= 1 or weight is None or weight < 0:
            raise BadInput(
                f"{job.data.dataset_name}, row {number}: preference {preference} and weight {weight};"
                " a preference is from 0 to 1, a weight at least 0"
            )
        rows.append((chosen, rejected, float(preference), float(weight)))
    packs = as_columns(pack_pairs(rows, 2 * batch_size, job.args.seed))
    # TRL takes a data set with these two columns for a tokenized one, and leaves it alone
    return Dataset.from_dict({**packs, "chosen_ids": packs["texts"], "rejected_ids": packs["texts"]})


class _Collator:
    """One pack to tensors: runs of texts of like length, each ids and mask (texts, n) padded on the right, and the
    pairs' columns (pairs,).
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, packs: list[dict[str, Any]]) -> dict[str, Any]:
        import torch
        from torch.nn.utils.rnn import pad_sequence

        (pack,) = packs
        texts = [torch.tensor(ids) for ids in pack["texts"]]
        runs = [[texts[n] for n in run] for run in length_chunks([len(text) for text in texts])]
        ends = torch.tensor(pack["pairs"])
        return {
            "ids": [pad_sequence(run, batch_first=True, padding_value=self.pad_token_id) for run in runs],
            "masks": [pad_sequence([torch.ones_like(ids) for ids in run], batch_first=True) for run in runs],
            "chosen": ends[:, 0],
            "rejected": ends[:, 1],
            "preference": torch.tensor(pack["preference"], dtype=torch.float32),
            "weight": torch.tensor(pack["weight"], dtype=torch.float32),
        }


def _trainer_class() -> Any:
    """RewardTrainer with our loss; made here because importing TRL takes seconds."""
    import torch
    from trl import RewardTrainer

    from align.train.losses import soft_bradley_terry

    class PackRewardTrainer(RewardTrainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.told: dict[str, list[float]] = {}

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            runs = zip(inputs["ids"], inputs["masks"], strict=True)
            logits = [model(input_ids=ids, attention_mask=mask, use_cache=False).logits for ids, mask in runs]
            scores = torch.cat(logits).squeeze(-1).float()
            chosen, rejected = scores[inputs["chosen"]], scores[inputs["rejected"]]
            loss = soft_bradley_terry(chosen, rejected, inputs["preference"], inputs["weight"])
            if self.args.center_rewards_coefficient is not None:
                loss = loss + self.args.center_rewards_coefficient * scores.square().mean()
            with torch.no_grad():
                right = (chosen > rejected).float() + 0.5 * (chosen == rejected)
                numbers = torch.stack([right.mean(), (chosen - rejected).mean(), scores.mean()])
                means = self.accelerator.gather_for_metrics(numbers.unsqueeze(0)).mean(0).tolist()
            prefix = "" if self.model.training else "eval_"
            for name, value in zip(("accuracy", "margin", "mean_reward"), means, strict=True):
                self.told.setdefault(prefix + name, []).append(value)
            return (loss, {"scores": scores}) if return_outputs else loss

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            prefix = "" if self.model.training else "eval_"
            due = [name for name in self.told if name.startswith("eval_") == bool(prefix)]
            means = {name: sum(values) / len(values) for name in due if (values := self.told.pop(name))}
            super().log({**logs, **means}, start_time)

    return PackRewardTrainer
