"""`align sft`: supervised fine-tuning on demonstrations, by TRL's SFTTrainer."""

from typing import Any

from align.data.load import load_demonstrations
from align.models.load import load_causal_lm
from align.train.common import lora_config, open_run, read_job, train


def run_sft(recipe: dict[str, Any], where: str, *, resume: bool = False, overwrite: bool = False) -> None:
    """Train a policy to imitate. From a preferences folder it takes sft.jsonl: best-liked and edited responses.
    Raises BadInput before anything is written.
    """
    from trl import SFTConfig, SFTTrainer

    job = read_job("sft", recipe, where, SFTConfig, resume, overwrite)
    rows = load_demonstrations(job.data.dataset_name, job.data.dataset_train_split, job.data.dataset_config)
    evaluation = None
    if job.args.eval_strategy != "no":
        evaluation = load_demonstrations(job.data.dataset_name, job.data.dataset_test_split, job.data.dataset_config)
    peft_config = lora_config(job, "CAUSAL_LM")
    model = load_causal_lm(job.source, job.model_args, trainable=True)

    run = open_run(job)
    trainer = SFTTrainer(
        model=model,
        args=job.args,
        train_dataset=rows,
        eval_dataset=evaluation,
        processing_class=job.tokenizer,
        peft_config=peft_config,
    )
    train(trainer, run, rows=len(rows))
