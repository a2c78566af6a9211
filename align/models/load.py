"""Models and tokenizers by name: a hub name, a local folder, or a folder with an adapter on a base."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from align.models.text import train_text_only
from align.run.checkpoint import STATE_FILES
from align.run.manifest import digest
from align.run.strategies import asked_strategy
from preferences.errors import BadInput
from preferences.files import read_json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import ModelConfig

# For base models, which bring no chat template: roles in plain words, the end-of-text token after each reply.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}:\n{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:\n{% endif %}"
)

# Tokens that models carry for padding, or never use otherwise; the first one present that is not the end token wins.
_PAD_TOKENS = ("<|finetune_right_pad_id|>", "<pad>", "<|pad|>", "[PAD]", "<|endoftext|>", "<unk>")

# What some templates leave open, and a run may not. Qwen3's has the model think first, which nobody ranked, and puts an
# empty thought before a response that is given: said so, prompts end and responses begin at the same place in both.
# Llama 3.2's writes today's date, and tomorrow the same texts would be other tokens: this is its date without a clock.
_SETTLED = {"enable_thinking": "false", "date_string": "'26 Jul 2024'"}

_CONFIGS = ("config.json", "generation_config.json", "adapter_config.json")  # what else decides what a model says


class ModelSource(NamedTuple):
    """Where a model comes from. `adapter` is a folder of LoRA weights on `base`, or None."""

    name: str
    base: str
    adapter: str | None
    revision: str | None = None  # of the base, on the hub

    @property
    def folders(self) -> list[Path]:
        """The local folders that the model comes from: adapter, base; none for a hub model."""
        return [Path(name) for name in (self.adapter, self.base) if name and Path(name).is_dir()]


def find_model(name: str, revision: str | None = None) -> ModelSource:
    """Look where a model is, without loading it. Raises BadInput for a folder without weights or an odd name."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if (folder / "manifest.json").is_file():
            status = read_json(folder / "manifest.json").get("status", "finished")
            if status != "finished":
                raise BadInput(
                    f"{name}: holds a run that is not finished ({status}); go on with it by --resume, or"
                    " name one of its checkpoints"
                )
        if (folder / "adapter_config.json").is_file():
            if not (folder / "adapter_model.safetensors").is_file():
                raise BadInput(
                    f"{name}: has an adapter_config.json, but no adapter_model.safetensors; no weights there"
                )
            base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
            if not isinstance(base, str) or not base:
                raise BadInput(f"{folder / 'adapter_config.json'}: key `base_model_name_or_path` names no base model")
            return ModelSource(name, find_model(base).base, str(folder), revision)
        if not (folder / "config.json").is_file():
            raise BadInput(f"{name}: not a model folder: it has no config.json and no adapter_config.json")
        if not any(folder.glob("*.safetensors")):
            raise BadInput(f"{name}: has a config.json, but no *.safetensors; no weights there (pickles are not read)")
        return ModelSource(name, str(folder), None)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", name):
        raise BadInput(f"{name}: no such folder, and not the name of a model on the hub")
    return ModelSource(name, name, None, revision)


def load_config(source: ModelSource) -> Any:
    """The base model's configuration; a model of text and images gives that of its text half. Raises BadInput."""
    return whole_config(source).get_text_config()


def whole_config(source: ModelSource) -> Any:
    """The base model's configuration with all that is in it. Raises BadInput."""
    from transformers import AutoConfig

    with loading(source):
        return AutoConfig.from_pretrained(source.base, revision=source.revision)


def load_tokenizer(source: ModelSource) -> "PreTrainedTokenizerBase":
    """The tokenizer, with a chat template, and a pad token that is not the end token. Raises BadInput."""
    from transformers import AutoTokenizer

    name = source.base
    if source.adapter and (Path(source.adapter) / "tokenizer_config.json").is_file():
        name = source.adapter
    with loading(source, "its tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(name, revision=source.revision if name == source.base else None)
    return completed(tokenizer, source.name)


def completed(tokenizer: "PreTrainedTokenizerBase", name: str) -> "PreTrainedTokenizerBase":
    """A tokenizer with what every verb here needs: see load_tokenizer. `name`: of the model, to say what is wrong."""
    if tokenizer.eos_token_id is None:
        raise BadInput(f"{name}: its tokenizer has no end-of-text token, so no response would ever end")
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE
    if isinstance(tokenizer.chat_template, str):
        tokenizer.chat_template = _settled(tokenizer.chat_template)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        vocabulary = tokenizer.get_vocab()
        spare = [token for token in (*_PAD_TOKENS, tokenizer.unk_token, tokenizer.bos_token) if token in vocabulary]
        spare = [token for token in spare if token != tokenizer.eos_token]
        if not spare:
            raise BadInput(f"{name}: its tokenizer has no token to pad with besides the end-of-text token")
        tokenizer.pad_token = spare[0]
    return tokenizer


def _settled(template: str) -> str:
    """A chat template with a value for each of `_SETTLED` that it knows; whoever passes one is still heard."""
    for name, value in _SETTLED.items():
        setting = f"{{% if {name} is not defined %}}{{% set {name} = {value} %}}{{% endif %}}"
        if re.search(rf"\b{name}\b", template) and setting not in template:
            template = setting + template
    return template


def load_causal_lm(
    source: ModelSource, model_args: "ModelConfig | None" = None, *, trainable: bool = False
) -> "PreTrainedModel":
    """A causal language model, quantised if `model_args` asks for it, with its adapter if it has one.

    Raises BadInput for a reward model, of which transformers would silently make a language model.
    """
    from transformers import AutoModelForCausalLM

    if has_score_head(source):
        raise BadInput(f"{source.name}: is a reward model, which scores texts; name a model that writes them")

    return _load(AutoModelForCausalLM, source, model_args, trainable)


def load_reward_model(
    source: ModelSource, model_args: "ModelConfig | None" = None, *, trainable: bool = False
) -> "PreTrainedModel":
    """A sequence classifier with one output, its `score` head from the weights where they have one.

    To start a reward run (`trainable`) any causal model will do: its head is new. Otherwise raises BadInput when
    the weights hold no score head, since the scores would then be random.
    """
    from transformers import AutoModelForSequenceClassification

    if not trainable and not has_score_head(source):
        raise BadInput(f"{source.name}: holds no score head, so it is not a reward model; `align reward` makes one")
    return _load(AutoModelForSequenceClassification, source, model_args, trainable, num_labels=1)


def has_score_head(source: ModelSource) -> bool:
    """Whether the weights on disk hold a `score` head; hub models are judged by their architecture's name."""
    from safetensors import safe_open

    folder = Path(source.adapter or source.base)
    if not folder.is_dir():
        return any("SequenceClassification" in name for name in load_config(source).architectures or [])
    for path in folder.glob("*.safetensors"):
        with loading(source), safe_open(path, framework="pt") as weights:
            if any(key.split(".")[-2:] == ["score", "weight"] for key in weights.keys()):  # noqa: SIM118
                return True
    return False


def _load(
    auto_class: Any, source: ModelSource, model_args: "ModelConfig | None", trainable: bool, **kwargs: Any
) -> Any:
    from transformers.utils import logging

    options: dict[str, Any] = {"dtype": weight_dtype(model_args), "revision": source.revision, **kwargs}
    quantization = _quantization(model_args, options["dtype"])
    if quantization is not None:
        options["quantization_config"] = quantization
        if asked_strategy() != "zero3":  # transformers takes none then
            options["device_map"] = {"": device()}
    if model_args is not None and model_args.attn_implementation:
        options["attn_implementation"] = model_args.attn_implementation
    logging.disable_progress_bar()  # of reading weights from the disk
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it warns of a new `score` head, which is what a reward run starts from
    try:
        with loading(source):
            model, found = auto_class.from_pretrained(source.base, output_loading_info=True, **options)
            missing = [key for key in sorted(found["missing_keys"]) if key != "score.weight"]
            if missing:  # transformers would make them up
                raise BadInput(f"{source.name}: its weights are not whole: there is no {missing[0]}")
            for module in model.modules():
                # On CPUs with AVX512-BF16 bitsandbytes repacks a layer when it first runs without a gradient, and from
                # then on loses every gradient that should pass through it, without a word.
                if hasattr(module, "support_avx512bf16_for_cpu"):
                    module.support_avx512bf16_for_cpu = False
            if trainable:
                train_text_only(model)
            if source.adapter:
                model = _put_adapter_on(model, source.adapter, trainable)
    finally:
        logging.set_verbosity(verbosity)
    return model


def _put_adapter_on(model: Any, adapter: str, trainable: bool) -> Any:
    from peft import PeftConfig, PeftModel, get_peft_model, load_peft_weights, set_peft_model_state_dict
    from peft.utils.integrations import gather_params_ctx
    from transformers import PreTrainedModel

    config = PeftConfig.from_pretrained(adapter)
    is_classifier = isinstance(model, PreTrainedModel) and hasattr(model, "score")
    if not is_classifier or config.task_type == "SEQ_CLS":
        return PeftModel.from_pretrained(model, adapter, config=config, is_trainable=trainable)
    # a reward run that starts from a policy's adapter: same LoRA weights, and a new head to train beside them
    config.task_type, config.modules_to_save, config.inference_mode = "SEQ_CLS", ["score"], not trainable
    with gather_params_ctx(model.score.weight):  # of its shards under ZeRO-3
        head = model.score.weight.detach().clone()
    model = get_peft_model(model, config)
    set_peft_model_state_dict(model, {**load_peft_weights(adapter, "cpu"), "base_model.model.score.weight": head})
    return model


def weight_dtype(model_args: "ModelConfig | None" = None) -> "torch.dtype":
    """What the weights are held in: the recipe's `dtype`, else bf16 on a GPU that has it, else fp32.

    Full-parameter training on a GPU keeps fp32 master weights under TRL's bf16 autocast, unless the recipe says.
    """
    import torch

    if model_args is not None and model_args.dtype not in (None, "auto"):
        dtype = getattr(torch, str(model_args.dtype), None)
        if not isinstance(dtype, torch.dtype):
            raise BadInput(f"key `dtype`: {model_args.dtype!r} is none of float32, bfloat16, float16")
        return dtype
    full = model_args is not None and not model_args.use_peft
    gpu_has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if gpu_has_bf16 and not full else torch.float32


def _quantization(model_args: "ModelConfig | None", dtype: "torch.dtype") -> Any:
    if model_args is None or not (model_args.load_in_4bit or model_args.load_in_8bit):
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=model_args.load_in_4bit,
        load_in_8bit=model_args.load_in_8bit,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype if asked_strategy() in ("fsdp2", "zero3") else None,  # only floats are sharded
        bnb_4bit_quant_type=model_args.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=model_args.use_bnb_nested_quant,
        llm_int8_skip_modules=["lm_head", "score"],  # the heads stay whole: they are small, and score is trained
    )


@contextmanager
def loading(source: ModelSource, what: str = "this model") -> Iterator[None]:
    """Turn what the libraries raise for a model that is unknown, out of reach or damaged into one sentence."""
    import torch

    try:
        yield
    except BadInput:
        raise
    except torch.OutOfMemoryError:
        raise
    except (ImportError, KeyError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's own, not a library's
            raise
        reason = str(error).strip().split("\n")[0].rstrip(": ")
        if "ignore_mismatched_sizes" in reason:
            reason = "its weights have other shapes than its config.json says"
        if not Path(source.name).exists():
            reason = f"no folder here has this name, and as a name on the hub: {reason}"
        raise BadInput(f"{source.name}: {what} could not be loaded ({reason})") from None
    except Exception as error:
        if type(error).__name__ != "SafetensorError":
            raise
        raise BadInput(f"{source.name}: its weights are damaged ({error}); make or fetch them again") from None


def model_facts(source: ModelSource) -> dict[str, Any]:
    """What a run's manifest says about a model: where it was, and the hashes of its weights where it is local."""
    from align.run.manifest import hash_weights

    facts: dict[str, Any] = {"name": source.name, "base": source.base, "revision": source.revision}
    facts["sha256"] = {str(folder): hash_weights(folder) for folder in source.folders}
    return facts


def weights_of(source: ModelSource) -> dict[str, Any]:
    """What a model computes, by content and not by name: equal for equal weights, wherever they lie.

    Of local folders the hashes of weights and configurations, of a hub model its commit; and what else its numbers
    depend on: their type, the kind of device, and the libraries' versions.
    """
    import importlib.metadata

    parts: list[Any] = []
    for name in (source.adapter, source.base):
        if name and Path(name).is_dir():
            folder = Path(name)
            weights = [path for path in folder.glob("*.safetensors") if path.name not in STATE_FILES]
            files = [*weights, *(folder / file for file in _CONFIGS)]
            parts.append({path.name: digest(path) for path in sorted(files) if path.is_file()})
        elif name:
            parts.append({"hub": name, "commit": hub_commit(name, source.revision)})
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    return {"parts": parts, "dtype": str(weight_dtype()), "device": device().type, **versions}


def hub_commit(name: str, revision: str | None) -> str | None:
    """The commit of a hub model's configuration, which load_config has fetched. None where it is not to be told."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(path).parent.name if isinstance(path, str) else None


def device() -> "torch.device":
    """The GPU of this process if there is one and the recipe wants it, else the CPU."""
    import os

    import torch

    if not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("1", "true", "yes"):
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
