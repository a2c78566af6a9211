"""`align sample`: responses to prompts, as items for raters to rank, or to look at."""

from dataclasses import dataclass
from typing import Any

from align.config import parse
from align.data.lengths import check_prompts, context_length
from align.data.load import load_prompts
from align.models.load import find_model, load_causal_lm, load_config, load_tokenizer
from align.models.sampling import sample, seed_of
from align.run.disk import check_can_be_written
from align.run.progress import say
from preferences.errors import BadInput
from preferences.files import sha256_json, write_jsonl


@dataclass
class SampleConfig:
    """The keys of a sampling recipe."""

    model_name_or_path: list[str]  # one model, or several whose responses are ranked against each other
    dataset_name: str
    dataset_config: str | None = None
    dataset_split: str = "train"
    num_prompts: int | None = None  # the first ones; all by default
    system: list[str | None] | None = None  # system prompts to sample under; raters don't see them
    num_responses: int = 2  # by each model under each system prompt, to each prompt
    max_new_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    batch_size: int = 16  # responses sampled at once
    seed: int = 42

    def __post_init__(self) -> None:
        for key in ("num_prompts", "num_responses", "max_new_tokens", "batch_size"):
            if getattr(self, key) is not None and getattr(self, key) < 1:
                raise ValueError(f"key `{key}`: {getattr(self, key)} is less than 1")
        if not self.model_name_or_path:
            raise ValueError("key `model_name_or_path`: names no model")


def run_sample(recipe: dict[str, Any], where: str, to_annotate: str | None) -> None:
    """Sample, and write an import file (`to_annotate`) or print the responses. Raises BadInput."""
    import torch

    (args,) = parse(recipe, (SampleConfig,), where)
    if to_annotate:
        check_can_be_written(to_annotate, "--to-annotate")
    systems = args.system or [None]
    if to_annotate and len(args.model_name_or_path) * len(systems) * args.num_responses < 2:
        raise BadInput(f"{where}: an item needs two responses to rank; set num_responses to 2 or more")
    prompts = load_prompts(args.dataset_name, args.dataset_split, args.dataset_config)[: args.num_prompts]
    sources = [find_model(name) for name in args.model_name_or_path]
    items: list[dict[str, Any]] = [
        {"id": sha256_json(prompt)[:12], "prompt": prompt, "responses": []} for prompt in prompts
    ]
    tokenizers = [load_tokenizer(source) for source in sources]
    for source, tokenizer in zip(sources, tokenizers, strict=True):
        context = context_length(load_config(source))
        for system in systems:
            full = [_under(system, prompt) for prompt in prompts]
            check_prompts(tokenizer, full, args.max_new_tokens, context, args.dataset_name)
    for source, tokenizer in zip(sources, tokenizers, strict=True):
        model = load_causal_lm(source)
        if torch.cuda.is_available():
            model.to("cuda")
        model.eval()
        work = [(item, system, number) for item in items for system in systems for number in range(args.num_responses)]
        for start in range(0, len(work), args.batch_size):
            batch = work[start : start + args.batch_size]
            samples = sample(
                model,
                tokenizer,
                [_under(system, item["prompt"]) for item, system, _ in batch],
                [seed_of(args.seed, source.name, item["id"], system, number) for item, system, number in batch],
                max_new_tokens=args.max_new_tokens,
                temperature=args.temperature,
                top_p=args.top_p,
            )
            for (item, system, _), text in zip(batch, samples.texts, strict=True):
                name = f"{source.name} under {system!r}" if system else source.name
                item["responses"].append({"text": text.strip(), "model": name})
            say(f"{source.name}: {start + len(batch)} of {len(work)} responses")
    if to_annotate:
        write_jsonl(to_annotate, items)
        say(f"{len(items)} items: {to_annotate}; next: annotate import PROJECT {to_annotate}")
        return
    for item in items:
        print(f"\n# {item['prompt'][-1]['content']}")
        for number, response in enumerate(item["responses"], start=1):
            print(f"\n({number}) {response['text']}")


def _under(system: str | None, prompt: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, *prompt] if system else prompt
