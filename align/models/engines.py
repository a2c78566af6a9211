"""Other ways to sample than transformers' generate: faster on a GPU, and not reproducible response by response.

An engine takes what `align.models.sampling.sample` has prepared: the model as it stands, prompts as token ids, the
tokens that end a response, a seed a prompt, and settings. It gives the responses' token ids, the ending one with them.
"""

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from preferences.errors import BadInput

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedTokenizerBase

    from align.models.sampling import Settings

_PAGE = 16  # tokens


def continuous_batching(
    model: Any, prompts: list[list[int]], ends: list[int], seeds: Sequence[int], settings: "Settings"
) -> list[list[int]]:
    """transformers' continuous batching: a response that ends makes room for the next prompt.

    One seed serves the whole batch, so what a response draws depends on its neighbours.
    """
    import torch
    from transformers import ContinuousBatchingConfig, GenerationConfig

    pages = sum(-(-(len(prompt) + settings.length) // _PAGE) for prompt in prompts)
    room = {} if torch.cuda.is_available() else {"page_size": _PAGE, "num_blocks": pages, "max_batch_tokens": 1024}
    out = model.generate_batch(
        inputs=prompts,
        generation_config=GenerationConfig(
            max_new_tokens=settings.length,
            do_sample=settings.temperature > 0,
            temperature=settings.temperature or None,
            top_p=settings.top_p,
            top_k=0,
            eos_token_id=ends,
            pad_token_id=settings.pad_id,
        ),
        # on a GPU it takes what memory is free; elsewhere it would take all there is
        continuous_batching_config=ContinuousBatchingConfig(seed=seeds[0] % 2**31, **room),
        warmup=False,
        progress_bar=False,
    )
    by_number = {int(name.rsplit("_", 1)[-1]): answer for name, answer in out.items()}
    return [list(by_number[number].generated_tokens) for number in sorted(by_number)]


class VLLM:
    """vLLM in this process, through TRL's VLLMGeneration; the policy's weights are copied to it before it samples.

    Needs a GPU and `pip install vllm`. vLLM computes logits with other kernels, so log-probabilities are taken from our
    own forward pass, as always.
    """

    def __init__(
        self, model: Any, accelerator: "Accelerator", tokenizer: "PreTrainedTokenizerBase", batch: int
    ) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise BadInput("key `rollout_engine`: vLLM is not installed; `pip install vllm`, or take `generate`")
        self.model, self.accelerator, self.tokenizer, self.batch = model, accelerator, tokenizer, batch
        self.engine: Any = None

    def __call__(
        self, model: Any, prompts: list[list[int]], ends: list[int], seeds: Sequence[int], settings: "Settings"
    ) -> list[list[int]]:
        """`model` is not used: the engine keeps the policy that it was made for."""
        if self.engine is None:
            from trl.generation.vllm_generation import VLLMGeneration

            self.engine = VLLMGeneration(
                self.model,
                self.accelerator,
                self.tokenizer,
                mode="colocate",
                gpu_memory_utilization=0.3,
                max_num_seqs=self.batch,
                temperature=settings.temperature,
                top_p=settings.top_p,
                max_completion_length=settings.length,
                generation_kwargs={"stop_token_ids": ends},
            )
        self.engine.sync_weights()
        _, responses, _, _ = self.engine.generate(prompts, None, 1)
        return [list(response) for response in responses]
