"""What is trained of a model that sees or hears as well: its text half.

The texts never go through the rest, so adapters there would learn nothing, take memory, and have several processes
wait for gradients that never come.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peft import LoraConfig

_TEXT_HALF = "language_model"  # transformers' name for it in every such model
_HEADS = ("lm_head", "score")


def lora_of(model_args: Any, config: Any, task_type: str) -> "LoraConfig | None":
    """The LoRA that a recipe's trl.ModelConfig asks for as PEFT wants it, or None: `use_peft` is off.

    config: of the whole model, as AutoConfig reads it. On all linear layers of the text half, unless the recipe says
    where; PEFT leaves the heads out of these.
    """
    from trl import get_peft_config

    if not model_args.use_peft:
        return None
    model_args.lora_task_type = task_type
    everywhere = model_args.lora_target_modules in (None, "all-linear")
    if everywhere:
        model_args.lora_target_modules = "all-linear"
    if task_type == "SEQ_CLS":  # without this PEFT drops the head when it saves
        model_args.lora_modules_to_save = sorted({*(model_args.lora_modules_to_save or []), "score"})
    lora = get_peft_config(model_args)
    if everywhere and _is_more_than_text(config):
        lora.exclude_modules = rf"(?!(.*\.)?{_TEXT_HALF}\.).*"
    return lora


def train_text_only(model: Any) -> None:
    """Freeze what is neither of the text half nor a head."""
    if not _is_more_than_text(model.config):
        return
    for name, parameter in model.named_parameters():
        if not {_TEXT_HALF, *_HEADS} & set(name.split(".")):
            parameter.requires_grad_(False)


def _is_more_than_text(config: Any) -> bool:
    return config.get_text_config() is not config
