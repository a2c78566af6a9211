"""`align reward`: a reward model on pairs or on whole rankings, by TRL's RewardTrainer with a loss of our own.

The loss takes what raters said as it was said (docs/losses.md): the probability that one response is better, ties,
strength, and how much its raters can be trusted, where the data has these columns. And every response goes through the
model once a pack, however many pairs it is in, and so does the prompt that it shares with others
(align/models/shared_prompts.py).
"""

import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from align.data.lengths import check_pairs, check_rankings, token_ids, whole_texts
from align.data.load import load_edits, load_pairs, load_rankings, mean_one, said_of
from align.data.packs import PairRow, RankingRow, as_columns, length_chunks, pack_pairs, pack_rankings
from align.models.load import load_reward_model
from align.run.progress import say
from align.train.common import Job, audited, held_out, lora_config, make_trainer, read_job
from align.train.even import real_rows, row_share
from align.train.running import train
from preferences.errors import BadInput

if TYPE_CHECKING:
    from datasets import Dataset

_SCORED = 256  # training texts, of which a run keeps the mean and the spread of their scores
_MOST_TIED = 12  # responses on one rank; the exact loss takes 2^12 sums then


@dataclass
class RewardLossArguments:
    """The keys of a reward recipe that say what is learnt from what raters said; docs/losses.md has the formulas."""

    loss_type: Literal["bradley_terry", "plackett_luce"] = field(
        default="bradley_terry", metadata={"help": "of pairs, or of every rater's ranking of all responses to a prompt"}
    )
    label_smoothing: float = field(default=0.0, metadata={"help": "share of answers that say the opposite by mistake"})
    strength_margin: float = field(default=0.0, metadata={"help": "score difference asked for by one step of strength"})

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"key `label_smoothing`: {self.label_smoothing} is not in [0, 0.5)")
        check_strength_margin(self.strength_margin)


def check_strength_margin(margin: float) -> None:
    """Raise ValueError unless it is a number of 0 or more."""
    if not 0 <= margin < float("inf"):
        raise ValueError(f"key `strength_margin`: {margin} is not a number of 0 or more")


def run_reward(recipe: dict[str, Any], where: str, *, resume: bool = False, overwrite: bool = False) -> None:
    """Train a scalar score such that P(chosen beats rejected) = sigmoid(score difference) (Bradley and Terry 1952).

    `per_device_train_batch_size` is in pairs, as in TRL: 2 times as many responses go through the model at once. A
    step, and so `max_steps`, is a pack of at most that many. Raises BadInput before anything is written.
    """
    from transformers import set_seed
    from trl import RewardConfig

    job = read_job("reward", recipe, where, RewardConfig, resume, overwrite, RewardLossArguments)
    (loss,) = job.own
    packed = _packed_pairs if loss.loss_type == "bradley_terry" else _packed_rankings
    packs, facts = packed(job, job.data.dataset_train_split, job.args.per_device_train_batch_size)
    evaluation = held_out(job, lambda split: packed(job, split, job.args.per_device_eval_batch_size)[0])
    job = audited(job, "pairs", job.args.max_length)
    peft_config = lora_config(job, "SEQ_CLS")
    set_seed(job.args.seed)  # the head is new: its first weights come from the seed
    model = load_reward_model(job.source, job.model_args, trainable=True)

    job.args.max_length = None  # dropped above; TRL would look for its own columns
    job.args.per_device_train_batch_size = job.args.per_device_eval_batch_size = 1  # a pack is a batch
    job.args.remove_unused_columns = False
    trainer = make_trainer(
        _trainer_class(loss.label_smoothing),
        job,
        model,
        data_collator=_collate,
        train_dataset=packs,
        eval_dataset=evaluation,
        peft_config=peft_config,
    )

    def after() -> dict[str, Any]:
        return {"scores": _score_moments(trainer, packs["texts"])}

    train(trainer, job, after, **facts, packs=len(packs))


def _score_moments(trainer: Any, packs: list[list[list[int]]]) -> dict[str, float]:
    """Mean and standard deviation of the model's scores on its training texts: Bradley-Terry leaves zero and unit open,
    so whoever puts scores of several runs together needs them (N+ details, arXiv 2403.17031).
    """
    import torch

    from align.models.shared_prompts import lay_out

    different = sorted({tuple(text) for pack in packs for text in pack})
    texts = sorted(random.Random(0).sample(different, min(len(different), _SCORED)))  # those of a prompt side by side
    trainer.model.eval()
    with torch.no_grad():
        eights = [texts[start : start + 8] for start in range(0, len(texts), 8)]
        scores = torch.cat([trainer.scores(trainer.model, lay_out(eight)) for eight in eights]).tolist()
    mean = sum(scores) / len(scores)
    spread = (sum((score - mean) ** 2 for score in scores) / len(scores)) ** 0.5
    return {"mean": mean, "std": spread, "texts": float(len(scores))}


def _packed_pairs(job: Job, split: str, batch_size: int) -> tuple["Dataset", dict[str, int]]:
    """The packs of a split's pairs and ties, and how many there are. Raises BadInput."""
    name = job.data.dataset_name
    pairs = load_pairs(name, split, job.data.dataset_config, ties=True)
    dropped = check_pairs(job.tokenizer, pairs, job.args.max_length, job.context, name)
    if dropped:
        say(f"{dropped} of {len(pairs)} pairs are longer than max_length {job.args.max_length} and are dropped")
    (loss,) = job.own
    rows = []
    for number, row in enumerate(pairs, start=1):
        preference, weight, strength = said_of(row, f"{name}, row {number}")
        chosen, rejected = (token_ids(job.tokenizer, text) for text in whole_texts(row))
        if job.args.max_length is None or max(len(chosen), len(rejected)) <= job.args.max_length:
            margin = _margin(row, loss.strength_margin * strength, f"{name}, row {number}")
            rows.append(PairRow(chosen, rejected, preference, weight, margin))
    weights = mean_one([row.weight for row in rows], name)
    rows = [row._replace(weight=weight) for row, weight in zip(rows, weights, strict=True)]
    packs = _as_dataset(as_columns(pack_pairs(rows, 2 * batch_size, job.args.seed)))
    ties, texts = sum(row.preference == 0.5 for row in rows), sum(map(len, packs["texts"]))
    say(f"{split}: {len(rows)} pairs, {ties} of them ties, over {texts} responses, in {len(packs)} packs")
    return packs, {"pairs": len(pairs), "pairs_dropped": dropped, "ties": ties}


def _margin(row: dict[str, Any], of_strength: float, where: str) -> float:
    """TRL's own column `margin`, where the data has it, or what the strength asks for."""
    margin = row.get("margin")
    if margin is None:
        return of_strength
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not math.isfinite(margin):
        raise BadInput(f"{where}: margin {margin!r}: it is a number; mend it, or take the column out")
    return float(margin)


def _packed_rankings(job: Job, split: str, batch_size: int) -> tuple["Dataset", dict[str, int]]:
    """The packs of a split's rankings, every rater's by itself, and how many there are. Raises BadInput.

    What was decided stands in place of the answers, and so does the consensus where there are none. A response that a
    rater rewrote, and what it became, are a ranking of two.
    """
    name = job.data.dataset_name
    items, trust = load_rankings(name, split)
    dropped = check_rankings(job.tokenizer, items, job.args.max_length, job.context, f"{name}, rankings.jsonl")
    if dropped:
        say(f"{dropped} of {len(items)} rankings are longer than max_length {job.args.max_length} and are dropped")
    (loss,) = job.own
    rows = []
    for item in items:
        if item["decided"] or not item["answers"]:
            said = [(item["ranks"], item["weight"], 0.0)]
        else:
            said = [
                (answer["ranks"], trust.get(answer["rater"], 1.0), loss.strength_margin * abs(answer["strength"] or 0))
                for answer in item["answers"]
            ]
        texts = [token_ids(job.tokenizer, item["prompt"] + response) for response in item["responses"]]
        _check_ranking(item["ranking"], [ranks for ranks, _, _ in said], batch_size, loss.label_smoothing > 0, name)
        if job.args.max_length is None or max(map(len, texts)) <= job.args.max_length:
            ranks, weights, margins = zip(*said, strict=True)
            rows.append(RankingRow(texts, ranks, weights, margins))
    rows += _edits(job, split)
    scaled = iter(mean_one([weight for row in rows for weight in row.weight], name))
    rows = [row._replace(weight=[next(scaled) for _ in row.weight]) for row in rows]
    packs = _as_dataset(as_columns(pack_rankings(rows, 2 * batch_size, job.args.seed)))
    answers = sum(len(row.ranks) for row in rows)
    say(f"{split}: {answers} rankings of {sum(map(len, packs['texts']))} responses, in {len(packs)} packs")
    return packs, {"rankings": answers, "items": len(items), "items_dropped": dropped}


def _check_ranking(name: str, said: list[list[int]], batch_size: int, smoothing: bool, where: str) -> None:
    count = len(said[0])
    if count > 2 * batch_size:
        raise BadInput(
            f"{where}: ranking {name} has {count} responses, and a pack room for {2 * batch_size}; set"
            f" per_device_train_batch_size and per_device_eval_batch_size to {(count + 1) // 2} or more"
        )
    tied = count if smoothing else max(ranks.count(rank) for ranks in said for rank in ranks)
    if tied > _MOST_TIED:
        why = " (label_smoothing takes all to be)" if smoothing else ""
        raise BadInput(
            f"{where}: ranking {name} has {tied} responses tied on one rank{why}, and plackett_luce takes {_MOST_TIED};"
            " set loss_type: bradley_terry"
        )


def _edits(job: Job, split: str) -> list[RankingRow]:
    rows = []
    for pair in load_edits(job.data.dataset_name, split):
        texts = [token_ids(job.tokenizer, text) for text in whole_texts(pair)]
        if job.args.max_length is None or max(map(len, texts)) <= job.args.max_length:
            rows.append(RankingRow(texts, [[1, 2]], [pair["weight"]], [0.0]))
    return rows


def _as_dataset(packs: dict[str, list[Any]]) -> "Dataset":
    from datasets import Dataset

    # TRL takes a data set with these two columns for a tokenized one, and leaves it alone
    return Dataset.from_dict({**packs, "chosen_ids": packs["texts"], "rejected_ids": packs["texts"]})


def _collate(packs: list[dict[str, Any]]) -> dict[str, Any]:
    """One pack to tensors: its texts, laid out to share their beginnings, and what was said of them: pairs' columns
    (pairs,), or a list with the places of each ranking's responses, and their ranks.
    """
    import torch

    from align.models.shared_prompts import lay_out

    (pack,) = packs
    batch = {
        "weight": torch.tensor(pack["weight"], dtype=torch.float32),
        "margin": torch.tensor(pack["margin"], dtype=torch.float32),
        "shared": lay_out(pack["texts"]),
    }
    if "rankings" in pack:
        return batch | {"rankings": [torch.tensor(p) for p in pack["rankings"]], "ranks": pack["ranks"]}
    ends = torch.tensor(pack["pairs"])
    preference = torch.tensor(pack["preference"], dtype=torch.float32)
    return batch | {"chosen": ends[:, 0], "rejected": ends[:, 1], "preference": preference}


def _trainer_class(label_smoothing: float) -> Any:
    """RewardTrainer with our loss; made here because importing TRL takes seconds."""
    import torch
    from torch.nn.utils.rnn import pad_sequence
    from trl import RewardTrainer

    from align.train.losses import bradley_terry, centring, plackett_luce, ranked_pairs, smoothed
    from align.train.progress import Means
    from align.train.sharing import Sharing, hardest

    def of_pairs(scores: Any, inputs: Any) -> tuple[Any, Any, Any, Any]:
        """Losses, and for the rest the scores of chosen and rejected, and what was preferred: (pairs,) each."""
        chosen, rejected = scores[inputs["chosen"]], scores[inputs["rejected"]]
        preference = smoothed(inputs["preference"], label_smoothing)
        return bradley_terry(chosen - rejected, preference, inputs["margin"]), chosen, rejected, inputs["preference"]

    def of_rankings(scores: Any, inputs: Any) -> tuple[Any, Any, Any, Any]:
        """Losses of rankings (n,), and the rest for all pairs of each of them."""
        losses, pairs = [], []
        for places, ranks, margin in zip(inputs["rankings"], inputs["ranks"], inputs["margin"], strict=True):
            loss = plackett_luce(scores[places], ranks, margin)
            if label_smoothing:  # a share of twice epsilon is drawn from a hat: half of it agrees by chance
                drawn = plackett_luce(scores[places], [1] * len(ranks))
                loss = (1 - 2 * label_smoothing) * loss + 2 * label_smoothing * drawn
            losses.append(loss)
            pairs.append(ranked_pairs(scores[places], ranks))
        chosen, rejected, preference = (torch.cat(column) for column in zip(*pairs, strict=True))
        return torch.stack(losses), chosen, rejected, preference

    class PackRewardTrainer(RewardTrainer):
        weighs_rows = True  # a row is a pack; see align/train/even.py

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.means = Means()
            self.sharing = Sharing(self, hardest(max(self.train_dataset["texts"], key=lambda pack: len(pack[-1]))))

        def scores(self, model: Any, shared: Any) -> Any:
            """(texts,) float32 of texts that are laid out, or else padded in runs of like length."""
            if self.sharing.works(model):
                return model(shared=shared.to(self.args.device))
            texts = shared.texts
            # Sharded weights are gathered by all processes at once, who then need as many runs as each other
            one = self.args.world_size > 1
            runs = [range(len(texts))] if one else length_chunks([len(text) for text in texts])
            logits = []
            for run in runs:
                rows = [torch.tensor(texts[number], device=self.args.device) for number in run]
                ids = pad_sequence(rows, batch_first=True, padding_value=self.processing_class.pad_token_id)
                mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
                logits.append(model(input_ids=ids, attention_mask=mask, use_cache=False).logits)
            return torch.cat(logits).squeeze(-1).float()

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            scores = self.scores(model, inputs["shared"])
            of = of_rankings if "rankings" in inputs else of_pairs
            losses, chosen, rejected, preference = of(scores, inputs)
            loss = (inputs["weight"] * losses).mean()
            if self.args.center_rewards_coefficient is not None:
                loss = loss + self.args.center_rewards_coefficient * centring(chosen, rejected).mean()
            loss = (row_share(self, inputs) * loss).sum()
            with torch.no_grad():
                side = (preference > 0.5).float() - (preference < 0.5).float()  # 0 of a tie, which nobody gets right
                gain = side * (chosen - rejected)
                right, decided = ((gain > 0) + 0.5 * ((gain == 0) & (side != 0))).sum(), side.abs().sum()
                sums = {
                    "accuracy": (right, decided),
                    "margin": (gain.sum(), decided),
                    "mean_reward": (scores.sum(), len(scores)),
                }
                blank = real_rows(inputs) == []
                self.means.add(self, {name: (0.0, 0) if blank else both for name, both in sums.items()})
            return (loss, {"scores": scores}) if return_outputs else loss

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            super().log({**logs, **self.means.take(self)}, start_time)

    return PackRewardTrainer
