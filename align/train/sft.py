"""`align sft`: supervised fine-tuning on demonstrations, by TRL's SFTTrainer."""

from typing import Any

from align.data.lengths import check_demonstrations
from align.data.load import load_demonstrations
from align.models.load import load_causal_lm
from align.run.progress import say
from align.train.common import audited, held_out, lora_config, make_trainer, read_job
from align.train.running import train


def run_sft(recipe: dict[str, Any], where: str, *, resume: bool = False, overwrite: bool = False) -> None:
    """Train a policy to imitate. From a preferences folder it takes sft.jsonl: best-liked and edited responses.
    Raises BadInput before anything is written.
    """
    from trl import SFTConfig, SFTTrainer

    job = read_job("sft", recipe, where, SFTConfig, resume, overwrite)
    rows = load_demonstrations(job.data.dataset_name, job.data.dataset_train_split, job.data.dataset_config)
    cut = check_demonstrations(job.tokenizer, rows, job.args.max_length, job.context, job.data.dataset_name)
    if cut:
        say(f"{cut} of {len(rows)} texts are longer than max_length {job.args.max_length} and will be cut")
    evaluation = held_out(job, lambda split: load_demonstrations(job.data.dataset_name, split, job.data.dataset_config))
    job = audited(job, "demonstrations", job.args.max_length)
    peft_config = lora_config(job, "CAUSAL_LM")
    model = load_causal_lm(job.source, job.model_args, trainable=True)

    trainer = make_trainer(
        SFTTrainer,
        job,
        model,
        train_dataset=rows,
        eval_dataset=evaluation,
        peft_config=peft_config,
    )
    train(trainer, job, rows=len(rows), rows_cut=cut)
