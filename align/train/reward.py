"""`align reward`: a Bradley-Terry reward model on preference pairs, by TRL's RewardTrainer."""

from typing import Any

from align.data.lengths import check_pairs
from align.data.load import load_pairs
from align.models.load import load_reward_model
from align.run.progress import say
from align.train.common import log_to, lora_config, open_run, read_job, train


def run_reward(recipe: dict[str, Any], where: str, *, resume: bool = False, overwrite: bool = False) -> None:
    """Train a scalar score such that P(chosen beats rejected) = sigmoid(score difference) (Bradley and Terry 1952).
    Raises BadInput before anything is written.
    """
    from transformers import set_seed
    from trl import RewardConfig, RewardTrainer

    job = read_job("reward", recipe, where, RewardConfig, resume, overwrite)
    pairs = load_pairs(job.data.dataset_name, job.data.dataset_train_split, job.data.dataset_config)
    dropped = check_pairs(job.tokenizer, pairs, job.args.max_length, job.context, job.data.dataset_name)
    if dropped:
        say(f"{dropped} of {len(pairs)} pairs are longer than max_length {job.args.max_length} and will be dropped")
    evaluation = None
    if job.args.eval_strategy != "no":
        evaluation = load_pairs(job.data.dataset_name, job.data.dataset_test_split, job.data.dataset_config)
    peft_config = lora_config(job, "SEQ_CLS")
    set_seed(job.args.seed)  # the head is new: its first weights come from the seed
    model = load_reward_model(job.source, job.model_args, trainable=True)

    run = open_run(job)
    trainer = RewardTrainer(
        model=model,
        args=job.args,
        train_dataset=pairs,
        eval_dataset=evaluation,
        processing_class=job.tokenizer,
        peft_config=peft_config,
        callbacks=[log_to(run)],
    )
    train(trainer, run, pairs=len(pairs), pairs_dropped=dropped)
