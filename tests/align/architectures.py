"""The architectures that the recipes are for, at toy size: untrained, with the tokens, the turns of the chat template,
and the end tokens of the real ones, since these are what differs between them.
"""

from pathlib import Path
from typing import Any

CHATML = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.role == 'assistant' and loop.last and THINKS %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{{- message.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false and THINKS %}{{- '<think>\\n\\n</think>\\n\\n' }}"
    "{%- endif %}{%- endif %}"
)
LLAMA = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}"
    "{%- endif %}{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: ' + date_string + '\\n\\n' + system }}"
    "{{- '<|eot_id|>' }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{%- endif %}"
)
GEMMA = (
    "{{ bos_token }}{%- if messages[0].role == 'system' -%}{%- set first = messages[0].content + '\\n\\n' -%}"
    "{%- set rest = messages[1:] -%}{%- else -%}{%- set first = '' -%}{%- set rest = messages -%}{%- endif -%}"
    "{%- for message in rest -%}{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{%- endif -%}"
    "{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' }}"
    "{{- (first if loop.first else '') + message.content | trim }}{{ '<end_of_turn>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}"
)
MISTRAL = (
    "{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}{%- set rest = messages[1:] %}"
    "{%- else %}{%- set rest = messages %}{%- endif %}{{- bos_token }}{%- for message in rest %}"
    "{%- if message.role == 'user' %}{%- if loop.last and system is defined %}"
    "{{- '[INST] ' + system + '\\n\\n' + message.content + '[/INST]' }}{%- else %}"
    "{{- '[INST] ' + message.content + '[/INST]' }}{%- endif %}"
    "{%- else %}{{- ' ' + message.content | trim + eos_token }}{%- endif %}{%- endfor %}"
)

# special tokens: beginning, end, pad (None: the model has none), others; the template; what ends a response besides
TOKENS: dict[str, tuple[str | None, str, str | None, list[str], str, list[str]]] = {
    "smollm2": ("<|endoftext|>", "<|im_end|>", "<|im_end|>", ["<|im_start|>"], CHATML.replace("THINKS", "false"), []),
    "llama": (
        "<|begin_of_text|>",
        "<|eot_id|>",
        None,
        ["<|finetune_right_pad_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>"],
        LLAMA,
        ["<|end_of_text|>"],
    ),
    "qwen3": (
        None,
        "<|im_end|>",
        "<|endoftext|>",
        ["<|im_start|>"],
        CHATML.replace("THINKS", "true"),
        ["<|endoftext|>"],
    ),
    "gemma3": ("<bos>", "<eos>", "<pad>", ["<start_of_turn>", "<end_of_turn>"], GEMMA, ["<end_of_turn>"]),
    "gemma3_text": ("<bos>", "<eos>", "<pad>", ["<start_of_turn>", "<end_of_turn>"], GEMMA, ["<end_of_turn>"]),
    "mistral": ("<s>", "</s>", None, ["<unk>", "[INST]", "[/INST]"], MISTRAL, []),
}
ARCHITECTURES = tuple(TOKENS)


def make_toy(architecture: str, folder: Path) -> Path:
    """A folder with an untrained model of two or three layers, and its tokenizer."""
    import torch
    import transformers

    begin, end, pad, others, template, also = TOKENS[architecture]
    tokenizer = _tokenizer([token for token in dict.fromkeys((begin, end, pad, *others)) if token])
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = begin, end, pad
    tokenizer.unk_token = "<unk>" if "<unk>" in others else None
    tokenizer.chat_template = template
    ids = tokenizer.convert_tokens_to_ids
    named = {"bos_token_id": begin and ids(begin), "eos_token_id": ids(end), "pad_token_id": pad and ids(pad)}
    config = _config(architecture, {"vocab_size": len(tokenizer), **named})
    torch.manual_seed(0)
    model = getattr(transformers, config.architectures[0])(config)
    model.generation_config = transformers.GenerationConfig(**{**named, "eos_token_id": [*map(ids, [end, *also])]})
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _config(architecture: str, tokens: dict[str, Any]) -> Any:
    """As the real ones, but small: heads wider than their share where those have them, windows shorter than a row."""
    import transformers

    shape: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        **tokens,
    }
    if architecture in ("smollm2", "llama"):
        rope = {"rope_theta": 5e5, "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0}
        rope |= {"original_max_position_embeddings": 64, "rope_type": "llama3"}
        more: dict[str, Any] = {"tie_word_embeddings": True}
        more |= {"rope_parameters": rope, "head_dim": 8} if architecture == "llama" else {}
        return transformers.LlamaConfig(**shape, **more, architectures=["LlamaForCausalLM"])
    if architecture == "qwen3":
        return transformers.Qwen3Config(
            **shape, head_dim=16, tie_word_embeddings=True, architectures=["Qwen3ForCausalLM"]
        )
    if architecture == "mistral":
        return transformers.MistralConfig(**shape, sliding_window=None, architectures=["MistralForCausalLM"])
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    shape |= {
        "num_hidden_layers": 3,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "sliding_window": 16,
        "layer_types": kinds,
    }
    shape |= {"query_pre_attn_scalar": 16}
    if architecture == "gemma3_text":
        return transformers.Gemma3TextConfig(**shape, architectures=["Gemma3ForCausalLM"])
    eyes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    eyes |= {"image_size": 28, "patch_size": 14}
    text = transformers.Gemma3TextConfig(**shape)
    return transformers.Gemma3Config(
        text_config=text, vision_config=eyes, mm_tokens_per_image=4, architectures=["Gemma3ForConditionalGeneration"],
        **{key: value for key, value in tokens.items() if key != "vocab_size"},
    )  # fmt: skip


def _tokenizer(special: list[str]) -> Any:
    """Bytes, some words, and the special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    raw.train_from_iterator(["Say red cat dog sun moon tea soup user assistant system model"] * 2, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw)
