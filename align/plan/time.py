"""How long a run takes: operations of its passes, by the model's shape and the data's tokens, over what a card does.

A multiplication and an addition are two operations. Under training on T tokens of a model whose matrices have N numbers
the forward pass takes 2 N T, the gradients by the activations as much again, and those by the weights, where they are
trained, as much once more: 6 N T (Kaplan et al., arXiv 2001.08361, section 2.1). Attention adds to that, and
recomputing the activations a forward pass.
"""

import time
from typing import Any, NamedTuple

import torch

from align.plan import sizes
from align.plan.cards import Card
from align.plan.data import Texts

SHARE = 0.35  # of the datasheet's rate, that training reaches on a GPU; assumed
CPU_SHARE = (
    0.5  # of what one large product of matrices reaches on this CPU; benchmarks/results/plan_against_measured.md
)
CPU_SAMPLING = 0.15  # the same, of sampling token by token
_KERNELS = 1e-3  # seconds a layer and token that `generate` takes at least, on a GPU; assumed
_READS = 0.6  # of the datasheet's memory bandwidth, that sampling reaches; assumed
_UNPACKED = 4.5  # bytes a weight that go through memory where it is in 4 bits: read, written in bf16, read
_LINK = 0.35  # of the datasheet's two-way rate, that one process sends with; assumed


class Shape(NamedTuple):
    """What decides the operations of a pass."""

    layers: int
    matrices: int  # numbers in the matrices that each token goes through, without the head and adapters
    head: int  # of the vocabulary head
    adapter: int  # numbers of the adapter, where one is trained
    attention: int  # operations a token and a token that it sees, over all layers, forwards
    cache: int  # numbers of keys and values a token


class Work(NamedTuple):
    """Tokens of a run, over all processes."""

    steps: int  # of the optimiser
    micro_batches: int  # of a process, in all steps
    trained: float  # tokens forwards and backwards
    scored: float  # of these, what goes through the head
    read: float  # tokens that go through once more without gradients
    read_scored: float
    context: float  # that a token sees on average
    sampled: float = 0.0  # tokens drawn
    draws: int = 0  # tokens drawn one after the other, by each process


def shape_of(model: Any) -> Shape:
    """Of a causal model or a classifier on the meta device, without adapters. Of experts those count that a token goes
    through.
    """
    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    words = model.get_input_embeddings().weight
    matrices = 0.0
    for name, parameter in model.named_parameters():
        if parameter is words or (head is not None and parameter is head.weight) or name.startswith("score"):
            continue
        if parameter.dim() == 2:
            matrices += parameter.numel()
        elif parameter.dim() == 3:  # all experts in one
            matrices += parameter.numel() * getattr(config, "num_experts_per_tok", 1) / parameter.shape[0]
    layers = config.num_hidden_layers
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    keys = getattr(config, "num_key_value_heads", None) or heads
    return Shape(
        layers,
        round(matrices),
        0 if head is None else head.weight.numel(),
        0,
        4 * layers * heads * width,
        2 * layers * keys * width,
    )


def forward(shape: Shape, tokens: float, scored: float, context: float) -> float:
    """Operations of a forward pass; `scored` tokens go through the head, and each sees `context` others on average."""
    return tokens * (2 * (shape.matrices + shape.adapter) + shape.attention * context) + 2 * shape.head * scored


def training(shape: Shape, tokens: float, scored: float, context: float, *, whole: bool, recompute: bool) -> float:
    """Operations of a forward and backward pass; `whole`: all weights are trained, else only the adapter."""
    once = forward(shape, tokens, scored, context)
    weights = shape.adapter * tokens + (shape.matrices * tokens + shape.head * scored if whole else 0)
    again = forward(shape, tokens, 0, context) if recompute else 0
    # attention goes through four products backwards, and two forwards
    return 2 * once + 2 * weights + shape.attention * context * tokens + again


def work_of(verb: str, args: Any, texts: Texts, processes: int) -> Work:
    """The tokens of a recipe. A step is `gradient_accumulation_steps` micro-batches of every process."""
    both = texts.prompt + texts.responses
    if verb == "ppo":
        return _ppo_work(args, texts, processes)
    per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * processes
    steps = -(-texts.rows // per_step)
    rows: float = texts.rows * args.num_train_epochs
    total = max(1, round(steps * args.num_train_epochs))
    if args.max_steps > 0:
        total = args.max_steps
        rows = float(total * min(per_step, texts.rows))
    scored = {"sft": both, "reward": 0.0}.get(verb, texts.responses)
    # KTO: the reference, and both again for completions of other prompts; DPO: the reference, once in the run
    read = {"kto": 3 * rows, "dpo": min(rows, float(texts.rows))}.get(verb, 0.0)
    context = both / (4 if verb in ("dpo", "reward") else 2)
    return Work(
        total,
        total * args.gradient_accumulation_steps,
        rows * both,
        rows * scored,
        read * both,
        read * scored,
        context,
    )


def _ppo_work(args: Any, texts: Texts, processes: int) -> Work:
    """Per rollout: drawn once, read by policy, reference, value and each reward run, and learnt from in every epoch."""
    updates = -(-args.total_episodes // args.batch_size)
    rollouts = float(updates * args.batch_size)
    both = texts.prompt + texts.responses
    models = 2 if args.value == "separate" else 1
    readers = 1 + args.use_reference + (models - 1) + len(args.reward_model_path or ())
    each = args.batch_size // processes
    at_once = -(-each // args.per_device_rollout_batch_size)
    steps = updates * args.num_ppo_epochs * args.num_mini_batches
    micro = -(-each // args.num_mini_batches // args.per_device_train_batch_size) or 1
    return Work(
        steps,
        steps * micro * models,
        rollouts * both * args.num_ppo_epochs * models,
        rollouts * texts.responses * args.num_ppo_epochs,
        rollouts * (both * readers + texts.prompt),
        rollouts * texts.responses * (1 + args.use_reference),
        both / 2,
        rollouts * texts.responses,
        updates * at_once * args.response_length,
    )


class Time(NamedTuple):
    """Seconds of a run."""

    learning: float
    reading: float  # passes without gradients
    sampling: float
    talking: float  # between processes, where it is more than the work beside it
    operations: float  # in all

    @property
    def total(self) -> float:
        return self.learning + self.reading + self.sampling + self.talking


def seconds(
    shape: Shape,
    work: Work,
    card: Card | None,
    *,
    processes: int = 1,
    whole: bool = False,
    recompute: bool = False,
    bits: int | None = None,
    sent: float = 0.0,
    engine: str = "generate",
    cpu: float = 0.0,
) -> Time:
    """The seconds of a run on cards, or (`card` None) on a CPU of `cpu` operations a second.

    sent: bytes that a process sends in the whole run. engine: what samples.
    """
    learn = training(shape, work.trained, work.scored, work.context, whole=whole, recompute=recompute)
    read = forward(shape, work.read, work.read_scored, work.context)
    draw = forward(shape, work.sampled, work.sampled, 2 * work.context)
    if card is None:
        rate = cpu * processes
        learning, reading = learn / (rate * CPU_SHARE), read / (rate * CPU_SHARE)
        return Time(learning, reading, draw / (rate * CPU_SAMPLING), 0.0, learn + read + draw)
    rate = card.tflops * 1e12 * SHARE
    learning, reading = learn / rate / processes, read / rate / processes
    moves = card.bandwidth * 1e9 * _READS
    weights = 2.0 * (shape.matrices + shape.head)
    if bits:  # each pass of a micro-batch unpacks every weight
        passes = work.micro_batches * (3 if recompute else 2)
        learning += passes * shape.matrices * _UNPACKED / moves
        weights = shape.matrices * _UNPACKED + shape.head * 2
    sampling = 0.0
    if work.draws:
        kept = work.sampled / processes * work.context * shape.cache * 2  # what all tokens drawn look back at
        kernels = shape.layers * _KERNELS * work.draws if engine == "generate" else 0.0
        sampling = max((work.draws * weights + kept) / moves + draw / rate / processes, kernels)
    between = sent / (card.link * 1e9 * _LINK)
    return Time(learning, reading, sampling, max(0.0, between - learning), learn + read + draw)


def cpu_rate() -> float:
    """Operations a second of this CPU, by a product of matrices that takes a tenth of a second or so."""
    one = torch.rand((768, 768))
    one @ one
    best = min(_timed(lambda: one @ one) for _ in range(5))
    return 2 * 768**3 / best


def _timed(do: Any) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def parameters(model: Any) -> int:
    """Numbers of a model's own weights, each once."""
    return sizes.count(sizes.own_parameters(model))
