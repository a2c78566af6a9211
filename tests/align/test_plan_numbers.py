"""`align plan`: operations, shares, disk and suggestions, by numbers that a hand can check."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from align.models.load import ModelSource, find_model
from align.plan import sizes
from align.plan import time as plan_time
from align.plan.cards import CARDS, card_of_driver, find_card
from align.plan.disk import Disk, disk_of
from align.plan.parts import Part
from align.plan.sharing import Gathered, gathered, share, traffic
from align.plan.time import Shape, Time, Work
from preferences.errors import BadInput
from tests.align.conftest import pair, refused, write_recipe, write_rows
from tests.align.test_plan import _config, folder_of, planned

HIDDEN, INNER, LAYERS, WORDS, KEYS = 64, 160, 2, 300, 32  # of _config; 2 of 4 heads of 16 for keys
LAYER = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * KEYS + 3 * HIDDEN * INNER
MATRICES, HEAD = LAYERS * LAYER, WORDS * HIDDEN


# --- operations ---------------------------------------------------------------------------------------------------


def test_the_shape_of_a_model_by_hand(tmp_path: Path) -> None:
    source = find_model(str(folder_of(_config("LlamaConfig", tie_word_embeddings=True), tmp_path)))
    shape = plan_time.shape_of(sizes.empty_model(source, torch.float32))
    assert shape == Shape(LAYERS, MATRICES, HEAD, 0, 4 * LAYERS * HIDDEN, 2 * LAYERS * KEYS)
    scored = plan_time.shape_of(sizes.empty_model(source, torch.float32, score=True))
    assert (scored.matrices, scored.head) == (MATRICES, 0)
    apart = find_model(str(folder_of(_config("LlamaConfig", tie_word_embeddings=False), tmp_path)))
    assert plan_time.shape_of(sizes.empty_model(apart, torch.float32)) == shape  # embeddings are looked up


def test_of_experts_those_count_that_a_token_goes_through(tmp_path: Path) -> None:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    source = find_model(str(folder_of(_config("Qwen3MoeConfig", head_dim=16, **experts), tmp_path)))
    shape = plan_time.shape_of(sizes.empty_model(source, torch.float32))
    attention = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * KEYS
    assert shape.matrices == LAYERS * (attention + 4 * HIDDEN + 2 * 3 * HIDDEN * 32)  # with the router


def test_operations_are_six_for_each_number_and_token() -> None:
    shape = Shape(layers=2, matrices=1000, head=200, adapter=0, attention=0, cache=0)
    assert plan_time.forward(shape, 10, 10, 5) == 2 * 1200 * 10
    whole = plan_time.training(shape, 10, 10, 5, whole=True, recompute=False)
    assert whole == 6 * 1200 * 10
    assert plan_time.training(shape, 10, 10, 5, whole=True, recompute=True) == whole + 2 * 1000 * 10
    assert plan_time.training(shape, 10, 0, 5, whole=True, recompute=False) == 6 * 1000 * 10


def test_frozen_weights_have_no_gradients_of_their_own() -> None:
    shape = Shape(layers=2, matrices=1000, head=200, adapter=30, attention=8, cache=0)
    tokens, context = 10, 5
    of_base, of_adapter, of_attention = 4 * 1200 * tokens, 6 * 30 * tokens, 3 * 8 * context * tokens
    found = plan_time.training(shape, tokens, tokens, context, whole=False, recompute=False)
    assert found == of_base + of_adapter + of_attention


def test_seconds_on_a_card() -> None:
    """One layer's numbers against a card of 10^12 operations and 10^9 bytes a second."""
    card = find_card("L4")._replace(tflops=1.0, bandwidth=1.0, link=1.0)
    shape = Shape(layers=4, matrices=10**9, head=0, adapter=0, attention=0, cache=0)
    work = Work(1, 1, trained=1000, scored=0, read=0, read_scored=0, context=0, sampled=0, draws=0)
    learnt = plan_time.seconds(shape, work, card, whole=True)
    assert learnt == Time(6e12 / (1e12 * plan_time.SHARE), 0, 0, 0, 6e12)
    assert plan_time.seconds(shape, work, card, whole=True, processes=4).learning == learnt.learning / 4
    drawn = plan_time.seconds(shape, work._replace(trained=0, sampled=8, draws=8), card)
    assert drawn.sampling == pytest.approx(8 * 2e9 / 0.6e9 + 8 * 2e9 / (1e12 * plan_time.SHARE))  # reads all weights


def test_work_is_counted_from_the_data(tiny: Path, tmp_path: Path) -> None:
    """Four pairs of one length: prompt, chosen and rejected by their tokens, the prompt once."""
    from align.data.lengths import token_ids
    from align.models.load import load_tokenizer

    rows = [pair("Say red.", "red red", "cat")] * 4
    data = write_rows(tmp_path / "rows.jsonl", rows)
    keys = {
        "model_name_or_path": str(tiny),
        "dataset_name": str(data),
        "output_dir": "o",
        "use_peft": True,
        "beta": 0.1,
    }
    recipe = write_recipe(tmp_path / "dpo.yaml", **keys, per_device_train_batch_size=2, num_train_epochs=3)
    told = planned(recipe)
    tokenizer = load_tokenizer(find_model(str(tiny)))
    chosen, rejected = (token_ids(tokenizer, rows[0]["prompt"] + rows[0][side]) for side in ("chosen", "rejected"))
    prompt = next(n for n, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b)
    assert (told["data"]["rows"], told["data"]["prompt"]) == (4, prompt)
    assert told["data"]["responses"] == len(chosen) + len(rejected) - 2 * prompt
    assert told["longest"]["tokens"] == max(len(chosen), len(rejected))
    both = told["data"]["prompt"] + told["data"]["responses"]
    assert told["steps"] == 3 * 4 // 2 // recipe_accumulation()
    assert told["tokens"]["trained"] == 3 * 4 * both
    assert told["tokens"]["read"] == 4 * both  # the reference, once in the run
    assert planned(recipe, "--max_steps", "1")["tokens"]["trained"] == 2 * both


def recipe_accumulation() -> int:
    from trl import DPOConfig

    return DPOConfig(output_dir="o", use_cpu=True, bf16=False).gradient_accumulation_steps


def published(folder: Path, **keys: Any) -> Path:
    """An SFT recipe of a hub model of which only config.json is here, in `folder`/shape."""
    config = _config("LlamaConfig", tie_word_embeddings=True)
    config.hidden_size, config.intermediate_size, config.head_dim = 1024, 2816, 64
    config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads = 2, 16, 8
    config.vocab_size, config.max_position_embeddings = 32000, 2048
    config.save_pretrained(folder / "shape")
    right: dict[str, Any] = {"model_name_or_path": "somebody/model", "dataset_name": "somebody/data", "packing": False}
    right |= {"output_dir": "runs/sft", "max_length": 1024, "per_device_train_batch_size": 2, **keys}
    return write_recipe(folder / "sft.yaml", **right, gradient_accumulation_steps=8)


def sharded(name: str, processes: int) -> list[str]:
    return ["--accelerate_config", name, "--num_processes", str(processes)]


@pytest.fixture()
def shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Plans the published shape, with these words behind."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    recipe = published(tmp_path)
    return lambda *words: planned(recipe, "--verb", "sft", "--config", tmp_path / "shape", *words)


# --- shares -------------------------------------------------------------------------------------------------------

PARTS = [
    Part("base", "", 1000, "throughout", "weights"),
    Part("policy", "", 400, "throughout", "trained"),
    Part("policy", "", 400, "throughout", "gradients"),
    Part("policy", "", 800, "throughout", "optimiser"),
    Part("policy", "", 70, "learning"),
]
UNITS = Gathered(layer=90, rest=50, whole=1000)


@pytest.mark.parametrize(
    ("strategy", "throughout", "learning"),
    [
        ("one", 2600, 70),
        ("ddp", 2600 + 400, 70),  # and the gradients once more, packed
        ("fsdp2", 2600 / 4, 70 + 2 * 90 + 50),
        # in bf16 weights and gradients of 200; in fp32 a share of the 400 that are trained
        ("zero2", 1000 + 200 + (200 + 800) / 4 + 400 / 4, 70 + 200),
        ("zero3", (1000 + 200 + 200 + 800) / 4 + 400 / 4, 70 + 200 + 1000),
    ],
)
def test_shares_of_four_processes(strategy: str, throughout: int, learning: int) -> None:
    found = share(PARTS, strategy, 4, UNITS, numbers=100)
    assert sum(part.bytes for part in found if part.when == "throughout") == throughout
    assert sum(part.bytes for part in found if part.when == "learning") == learning
    assert share(PARTS, strategy, 1, UNITS, numbers=100) == PARTS


def test_a_packed_base_is_whole_on_every_card_before_fsdp2_cuts_it() -> None:
    for strategy, before in (("fsdp2", 1000), ("zero3", 250), ("ddp", 1000)):
        found = share(PARTS, strategy, 4, UNITS, numbers=100, packed=True)
        bases = [part.bytes for part in found if part.role == "base" or part.when == "loading"]
        assert sum(bases) == before


def test_traffic_is_that_of_rings() -> None:
    assert traffic("ddp", 4, 400, UNITS, micro_batches=8) == 2 * 3 / 4 * 400
    assert traffic("fsdp2", 4, 400, UNITS, micro_batches=8) == 3 / 4 * 8 * (2 * 1000 + 400)
    assert traffic("one", 1, 400, UNITS, micro_batches=8) == 0


def test_what_is_put_together_are_layers(tmp_path: Path) -> None:
    source = find_model(str(folder_of(_config("LlamaConfig", tie_word_embeddings=True), tmp_path)))
    units = gathered(sizes.empty_model(source, torch.float32), None, False, 2)
    assert units.layer == 2 * (LAYER + 2 * HIDDEN)  # with its two norms
    assert units.rest == 2 * (HEAD + HIDDEN)
    assert units.whole == LAYERS * units.layer + units.rest


@pytest.mark.slow
def test_shares_are_told_by_the_command(shape: Callable[..., dict[str, Any]]) -> None:
    one, two = shape("--gpu", "L4"), shape("--gpu", "L4", *sharded("fsdp2", 2))
    size = {part["what"].split(",")[0]: part["bytes"] for part in one["parts"]}
    shared = {part["what"].split(",")[0]: part["bytes"] for part in two["parts"]}
    for what, whole in size.items():
        if what.startswith(("gradients", "Adam's two")):
            assert shared[what] == -(-whole // 2)
    assert (two["strategy"], two["processes"]) == ("fsdp2", 2)
    assert (one["steps"], two["steps"]) == (3 * 625, 3 * 313)  # 10,000 rows, of 16 and of 32 a step
    assert two["total"] < one["total"]


# --- suggestions --------------------------------------------------------------------------------------------------


def test_the_suggested_batch_fits_and_the_next_does_not(shape: Callable[..., dict[str, Any]]) -> None:
    told = shape("--gpu-memory", "2", "--use_peft")
    (advice,) = told["suggestions"]
    size, times = advice["keys"]["per_device_train_batch_size"], advice["keys"]["gradient_accumulation_steps"]
    assert size * times == 2 * 8
    for larger, fits in ((1, True), (2, False)):
        keys = ["--per_device_train_batch_size", size * larger, "--gradient_accumulation_steps", times // larger]
        then = shape("--gpu-memory", "2", "--use_peft", *keys)
        assert then["fits"] is fits
        assert not fits or (then["total"] == advice["total"] and then["suggestions"] == [])


@pytest.mark.slow
def test_what_fits_nowhere_is_shared_or_made_smaller(shape: Callable[..., dict[str, Any]]) -> None:
    told = shape("--gpu-memory", "1.2")
    assert told["fits"] is False
    strategy, kind = told["suggestions"]
    assert strategy["what"] == "strategy"
    on = sharded(strategy["strategy"].replace("zero", "deepspeed_zero"), strategy["processes"])
    keys = [word for key, value in strategy["keys"].items() for word in (f"--{key}", str(value).lower())]
    then = shape("--gpu-memory", "1.2", *on, *keys)
    assert (then["fits"], then["total"]) == (True, strategy["total"])
    assert (kind["what"], kind["keys"]["use_peft"]) == ("kind", True)
    assert shape("--gpu-memory", "0.1")["suggestions"] == []


def test_cost_is_hours_times_price(shape: Callable[..., dict[str, Any]]) -> None:
    told = shape("--gpu", "A100 80GB", "--price", "2")
    assert told["cost"] == pytest.approx(told["seconds"]["total"] / 3600 * 2)
    four = shape("--gpu", "A100 80GB", "--price", "2", *sharded("multi_gpu", 4))
    assert four["cost"] == pytest.approx(four["seconds"]["total"] / 3600 * 4 * 2)
    assert told["data"]["known"] is False
    assert "are assumed" in " ".join(told["notes"])


# --- disk and cards -----------------------------------------------------------------------------------------------


def test_disk_of_checkpoints(tmp_path: Path) -> None:
    source = ModelSource("somebody/model", "somebody/model", None)
    rest = 20_000_000
    found = disk_of(source, 1000, 40, 80, every=10, steps=100, limit=2, cache=7)
    assert found == Disk(2000, 120 + rest, 3, 40 + rest, 7)  # the one being written, too
    assert found.total == 2000 + 3 * (120 + rest) + 40 + rest + 7
    assert disk_of(source, 1000, 40, 80, every=50, steps=100, limit=None, cache=0).checkpoints == 2
    assert disk_of(source, 1000, 40, 80, every=None, steps=100, limit=2, cache=0).checkpoints == 0


def test_cards_by_name() -> None:
    assert find_card("a100-80gb").name == find_card("NVIDIA A100 80 GB").name == "A100 80GB"
    assert find_card("rtx4090").name == "RTX 4090"
    for driver, card in (("NVIDIA A100-SXM4-40GB", "A100 40GB"), ("NVIDIA H100 80GB HBM3", "H100 80GB")):
        found = card_of_driver(driver)
        assert found is not None and found.name == card
    assert card_of_driver("NVIDIA A10G") is None
    assert all(card.source.startswith("https://") for card in CARDS)
    with pytest.raises(BadInput, match="may be any of A100 80GB, A100 40GB"):
        find_card("A100")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpu", "Voodoo"], "is not in the table"),
        (["--gpu", "L4", "--device", "cpu"], "contradict"),
        (["--num_processes", "2"], "say --accelerate_config NAME, too"),
        (["--verb", "grpo"], "a PPO recipe with the same model"),
        (["--verb", "evaluate"], "holds one model at a time"),
        (["--config", "nowhere"], "no config.json there"),
        (["--accelerate_config", "fsdp2"], "PPO"),
    ],
)
def test_bad_input(words: list[str], said: str, ppo_recipe: Callable[..., Path]) -> None:
    assert said in refused("plan", ppo_recipe(), *words)
