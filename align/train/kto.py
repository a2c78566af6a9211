"""`align kto`: Kahneman-Tversky Optimization (arXiv 2402.01306) on single responses, by TRL's stable KTOTrainer."""

from typing import Any

from align.data.lengths import check_demonstrations
from align.data.unpaired import load_unpaired
from align.models.load import load_causal_lm
from align.run.progress import say
from align.train.common import audited, held_out, lora_config, make_trainer, read_job, reference
from align.train.running import train


def run_kto(recipe: dict[str, Any], where: str, *, resume: bool = False, overwrite: bool = False) -> None:
    """Train a policy on responses that are good or bad by themselves; pairs are taken apart (align/data/unpaired.py).
    The reference is as in DPO. Raises BadInput before anything is written.
    """
    from trl import KTOConfig, KTOTrainer

    job = read_job("kto", recipe, where, KTOConfig, resume, overwrite)
    name, config = job.data.dataset_name, job.data.dataset_config
    rows = load_unpaired(name, job.data.dataset_train_split, config, job.args.seed)
    cut = check_demonstrations(job.tokenizer, rows, job.args.max_length, job.context, name)
    if cut:
        say(f"{cut} of {len(rows)} responses are longer than max_length {job.args.max_length} and will be cut")
    good = sum(rows["label"])
    bad = len(rows) - good
    say(f"{good} good and {bad} bad responses")
    counts = [good * job.args.desirable_weight, bad * job.args.undesirable_weight]
    if not good or not bad:
        say(f"all are {'good' if good else 'bad'}: KTO learns from what sets good ones apart from bad ones; give both")
    elif min(counts) > 0 and not 0.995 <= counts[0] / counts[1] <= 1.335:  # eq. 8 of the paper, to two places
        say(
            f"the good ones count {counts[0] / counts[1]:.2f} times as much as the bad ones, and 1 to 1.33 is advised;"
            f" desirable_weight: {counts[1] / good:.2f} makes it 1"
        )
    evaluation = held_out(job, lambda split: load_unpaired(name, split, config, job.args.seed))
    job = audited(job, None, job.args.max_length)
    peft_config = lora_config(job, "CAUSAL_LM")
    model = load_causal_lm(job.source, job.model_args, trainable=True)

    trainer = make_trainer(
        KTOTrainer,
        job,
        model,
        train_dataset=rows,
        eval_dataset=evaluation,
        peft_config=peft_config,
        ref_model=reference(job),
    )
    train(trainer, job, rows=len(rows), good=good, rows_cut=cut)
