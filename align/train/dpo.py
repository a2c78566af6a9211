"""`align dpo`: Direct Preference Optimization (arXiv 2305.18290), by TRL's DPOTrainer."""

from typing import Any

from align.data.lengths import check_pairs
from align.data.load import load_pairs
from align.models.load import load_causal_lm
from align.run.progress import say
from align.train.common import lora_config, make_trainer, read_job, train


def run_dpo(recipe: dict[str, Any], where: str, *, resume: bool = False, overwrite: bool = False) -> None:
    """Train a policy on preference pairs. The reference is the model as it is before training: the base, or, when
    training goes on with an adapter, a frozen copy of that adapter. Raises BadInput before anything is written.
    """
    from trl import DPOConfig, DPOTrainer

    job = read_job("dpo", recipe, where, DPOConfig, resume, overwrite)
    pairs = load_pairs(job.data.dataset_name, job.data.dataset_train_split, job.data.dataset_config)
    cut = check_pairs(job.tokenizer, pairs, job.args.max_length, job.context, job.data.dataset_name)
    if cut:
        say(f"{cut} of {len(pairs)} pairs are longer than max_length {job.args.max_length} and will be cut")
    evaluation = None
    if job.args.eval_strategy != "no":
        evaluation = load_pairs(job.data.dataset_name, job.data.dataset_test_split, job.data.dataset_config)
    peft_config = lora_config(job, "CAUSAL_LM")
    model = load_causal_lm(job.source, job.model_args, trainable=True)

    trainer = make_trainer(
        DPOTrainer,
        job,
        model,
        train_dataset=pairs,
        eval_dataset=evaluation,
        peft_config=peft_config,
    )
    train(trainer, job, pairs=len(pairs), pairs_cut=cut)
