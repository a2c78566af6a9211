"""`align plan`: its counts against real models, its steps against real steps, and that it loads nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from align.models.load import find_model, load_causal_lm, load_reward_model, load_tokenizer
from align.models.logprobs import last_states, response_logprobs, to_rows
from align.models.sampling import sample
from align.plan import sizes
from align.plan.plan import find_verb
from tests.align.conftest import done, pair, refused, write_recipe, write_rows

ROOT = Path(__file__).parents[2]
RECIPES = sorted(ROOT.glob("recipes/*/*/*.yaml"))
PLANNED = ("ppo", "sft", "reward", "dpo", "kto")
MAKERS = {
    "llama": lambda: _config("LlamaConfig", tie_word_embeddings=True),
    "qwen3": lambda: _config("Qwen3Config", head_dim=16),
    "gemma2": lambda: _config("Gemma2Config", head_dim=16),  # caps its logits, so its head is not the plain one
}


def _config(name: str, **keys: Any) -> Any:
    import transformers

    shape = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "vocab_size": 300}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return getattr(transformers, name)(
        **shape, **heads, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0, **keys
    )


def folder_of(config: Any, folder: Path) -> Path:
    """A model folder with weights that are no weights: nobody may read them."""
    config.save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def lora(r: int = 4, **keys: Any) -> LoraConfig:
    return LoraConfig(task_type="CAUSAL_LM", r=r, target_modules="all-linear", **keys)


@pytest.fixture()
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever reads weights fails."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("weights were read")

    for name in (
        "transformers.PreTrainedModel.from_pretrained",
        "transformers.modeling_utils.PreTrainedModel.from_pretrained",
        "peft.PeftModel.from_pretrained",
        "peft.load_peft_weights",
        "safetensors.safe_open",
        "safetensors.torch.load_file",
        "torch.load",
    ):
        monkeypatch.setattr(name, fail)


# --- counts -------------------------------------------------------------------------------------------------------


def test_parameters_are_those_of_the_real_model(tiny: Path, reward_run: Path) -> None:
    for real, empty in (
        (load_causal_lm(find_model(str(tiny))), sizes.empty_model(find_model(str(tiny)), torch.float32)),
        (
            load_reward_model(find_model(str(reward_run))._replace(adapter=None), trainable=True),
            sizes.empty_model(find_model(str(reward_run)), torch.float32, score=True),
        ),
    ):
        ours, theirs = list(empty.parameters()), list(real.parameters())
        assert (sizes.count(ours), sizes.size(ours)) == (sizes.count(theirs), sizes.size(theirs))
        assert all(parameter.is_meta for parameter in ours)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_are_those_of_peft(tiny: Path, dtype: torch.dtype) -> None:
    source = find_model(str(tiny))
    real = get_peft_model(load_causal_lm(source).to(dtype), lora(), adapter_name="policy")
    real.add_adapter("value", lora(r=8, modules_to_save=["norm"]))
    adapters = {"policy": lora(), "value": lora(r=8, modules_to_save=["norm"])}
    empty = sizes.put_adapters_on(sizes.empty_model(source, dtype), adapters, ["value"])
    for name in ("policy", "value"):
        theirs = [p for key, p in real.named_parameters() if f".{name}." in key]
        ours = sizes.adapter_parameters(empty, name)
        assert sizes.count(ours) > 0
        assert (sizes.count(ours), sizes.size(ours)) == (sizes.count(theirs), sizes.size(theirs))
        assert {p.requires_grad for p in ours} == {name == "value"}
    assert sizes.count(sizes.own_parameters(empty)) == sizes.count(load_causal_lm(source).parameters())


@pytest.mark.parametrize(("bits", "nested"), [(4, False), (4, True), (8, False)])
def test_quantised_weights_are_as_large_as_bitsandbytes_has_them(bits: int, nested: bool, tmp_path: Path) -> None:
    """All that its layers hold: the packed weights, their constants, and the constants' own, code tables too."""
    from transformers import AutoModelForCausalLM
    from trl import ModelConfig

    config = _config("LlamaConfig", tie_word_embeddings=True)
    config.hidden_size, config.intermediate_size, config.head_dim = 512, 1024, 128
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    source = find_model(str(tmp_path))
    args = ModelConfig(use_peft=True, load_in_4bit=bits == 4, load_in_8bit=bits == 8, use_bnb_nested_quant=nested)
    real = load_causal_lm(source, args)
    held = sizes.size(real.parameters())
    for parameter in real.parameters():
        state = getattr(parameter, "quant_state", None)
        for constants in (state, getattr(state, "state2", None)):
            held += 0 if constants is None else sizes.size([constants.absmax, constants.code])
        scale = getattr(parameter, "SCB", None)
        held += 0 if scale is None else sizes.size([scale])
    ours = sizes.model_size(sizes.empty_model(source, torch.float32), bits, nested)
    assert ours == pytest.approx(held, rel=0.02)


def test_adam_holds_what_is_said(tiny: Path) -> None:
    parameters = list(load_causal_lm(find_model(str(tiny))).parameters())
    optimizer = torch.optim.AdamW(parameters)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moments = [t for state in optimizer.state.values() for key, t in state.items() if key.startswith("exp_avg")]
    assert sizes.optimiser_size(parameters) == sizes.size(moments)
    assert sizes.optimiser_size(parameters, "adamw_bnb_8bit") == pytest.approx(sizes.size(moments) / 4, rel=0.02)


# --- steps --------------------------------------------------------------------------------------------------------


def real_step(model: Any, rows: int, prompt: int, response: int, entropy: bool, recompute: bool) -> sizes.Step:
    """The same of a step with real tensors, as PPO takes it."""
    from functools import partial

    from torch.utils.checkpoint import checkpoint
    from transformers.modeling_layers import GradientCheckpointingLayer

    inner = sizes._inner(model)
    laid_out = to_rows([[5] * prompt] * rows, [[7] * response] * rows, "cpu")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    for layer in inner.modules():
        if recompute and isinstance(layer, GradientCheckpointingLayer):
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    there = [*model.parameters(), *model.buffers(), *(p.grad for p in trained), *laid_out]
    with sizes._Living(there) as living:
        states = last_states(inner, laid_out.ids)
        kept = living.now
        logprobs, entropies = response_logprobs(inner, states, laid_out, 0.7, entropy=entropy)
        (logprobs.sum() + (0 if entropies is None else entropies.sum())).backward()
    return sizes.Step(kept, living.most)


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("way", ["lora", "whole", "entropy"])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_step_takes_what_a_real_one_takes(kind: str, way: str, recompute: bool, tmp_path: Path) -> None:
    """With more tokens than the vocabulary head takes at once, so that it goes in pieces."""
    from transformers import AutoModelForCausalLM

    config = MAKERS[kind]()
    source = find_model(str(folder_of(config, tmp_path)))

    def model(empty: bool) -> Any:
        torch.manual_seed(0)
        made = sizes.empty_model(source, torch.float32) if empty else AutoModelForCausalLM.from_config(config).eval()
        if way == "whole":
            return made
        if empty:
            return sizes.put_adapters_on(made, {"policy": lora()}, ["policy"])
        return get_peft_model(made, lora(), adapter_name="policy").eval()

    for at_once in (2**24, 300 * 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("align.models.logprobs._LOGITS_AT_ONCE", at_once)
            patch.setattr("align.plan.sizes._LOGITS_AT_ONCE", at_once)
            real = real_step(model(False), 3, 40, 16, way == "entropy", recompute)
            ours = sizes.learning_size(model(True), 3, 56, 16, entropy=way == "entropy", recompute=recompute)
        assert ours.kept == pytest.approx(real.kept, rel=0.02)
        assert ours.peak == pytest.approx(real.peak, rel=0.04)


def test_sampling_takes_what_it_really_takes(tiny: Path) -> None:
    source = find_model(str(tiny))
    model, tokenizer = load_causal_lm(source).eval(), load_tokenizer(source)
    prompts = [[{"role": "user", "content": "Say soup and tea and milk."}]] * 8
    with sizes._Living([*model.parameters(), *model.buffers()]) as living:
        said = sample(model, tokenizer, prompts, list(range(8)), max_new_tokens=24, stop_tokens=())
    longest = max(map(len, said.responses))
    ours = sizes.sampling_size(sizes.empty_model(source, torch.float32), 8, len(said.prompts[0]), longest)
    tokens = 8 * (len(said.prompts[0]) + longest)
    assert ours.cache == tokens * 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, head size, fp32
    assert ours.peak == pytest.approx(living.most, rel=0.15)


def test_a_model_that_decides_by_its_data_is_said(tmp_path: Path) -> None:
    shape = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    config = _config("Qwen3MoeConfig", head_dim=16, experts_implementation="eager", **shape)
    source = find_model(str(folder_of(config, tmp_path)))
    empty = sizes.empty_model(source, torch.float32)
    empty.set_experts_implementation("eager")
    with pytest.raises(ValueError, match="qwen3_moe takes can't be found without running it"):
        sizes.learning_size(empty, 1, 8, 4)


# --- the command --------------------------------------------------------------------------------------------------


def planned(*words: Any) -> dict[str, Any]:
    """What `align plan WORDS --json` says."""
    document: dict[str, Any] = json.loads(done("plan", *words, "--json").out)
    return document


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("path", [path for path in RECIPES if path.parent.name in PLANNED],
                         ids=lambda path: "-".join(path.parts[-3:]))  # fmt: skip
def test_recipes_are_planned_without_loading(path: Path, device: str, tiny: Path) -> None:
    fits = ["--response_length", "16"] if path.parent.name == "ppo" else []
    told = planned(path, "--model_name_or_path", tiny, "--device", device, *fits)
    assert (told["format"], told["verb"], told["device"]) == (1, path.parent.name, device)
    moments = {when: sum(part["bytes"] for part in told["parts"] if part["when"] == when) for when in told["moments"]}
    assert moments == told["moments"]
    largest = max(moments[when] for when in ("rolling out", "learning", "stepping"))
    assert told["total"] == moments["throughout"] + largest + moments["libraries"]
    assert all(part["bytes"] >= 0 for part in told["parts"])


@pytest.mark.usefixtures("no_weights")
def test_the_roles_of_ppo(ppo_recipe: Callable[..., Path], tiny: Path, reward_run: Path, pairs_file: Path) -> None:
    def roles(*words: Any) -> dict[str, int]:
        parts = planned(ppo_recipe(), *words)["parts"]
        return {part["role"]: part["bytes"] for part in parts[::-1] if part["when"] == "throughout"}

    base = sizes.size(sizes.empty_model(find_model(str(tiny)), torch.float32).parameters())
    one = roles()
    assert one["base"] == base
    assert one["value"] == one["reward"] == one["policy"] > 0
    assert roles("--lora_r", "8")["policy"] == 2 * one["policy"]
    assert roles("--lora_r", "8")["value"] == one["reward"]  # the value model starts as the reward run
    assert one["reference"] == 0
    assert roles("--value", "shared")["value"] == 0
    two = roles("--reward_model_path", f"[{reward_run}, {reward_run}]")
    assert two["reward 1"] == two["reward 2"] == one["reward"]
    whole = roles("--use_peft", "false")
    assert whole["policy"] == whole["reference"] == base
    assert whole["value"] == base + 4 * 32  # the reward run's, with its score head
    assert whole["reward"] > base
    assert roles("--use_peft", "false", "--use_reference", "false", "--kl_coef", "0")["reference"] == 0
    assert roles("--load_in_4bit")["base"] < base / 2
    start = roles("--model_name_or_path", reward_run)  # any adapter will do to start from
    assert start["reference"] == start["policy"] > 0


@pytest.mark.usefixtures("no_weights")
def test_the_longest_prompt_and_where_it_is_from(
    ppo_recipe: Callable[..., Path], tiny: Path, pairs_file: Path, tmp_path: Path
) -> None:
    rows = [pair("Say soup " * 4, "red", "cat"), pair("soup " * 200, "red", "cat"), pair("Say red.", "red", "cat")]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    tokenizer = load_tokenizer(find_model(str(tiny)))
    turns = [{"role": "user", "content": "Say soup " * 4}]
    length = len(tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"])
    longest = planned(ppo_recipe(dataset_name=str(data)))["longest"]
    assert longest == {"tokens": length, "from": f"the longest of 3 in {data}"}  # the second fits no context
    assert planned(ppo_recipe(dataset_name=str(data), max_prompt_length=25))["longest"]["tokens"] == 22
    elsewhere = {"dataset_name": "somebody/prompts"}
    told = planned(ppo_recipe(max_prompt_length=50, **elsewhere))["longest"]
    assert told == {"tokens": 50, "from": "max_prompt_length"}
    assert planned(ppo_recipe(max_prompt_length=500, **elsewhere))["longest"]["tokens"] == 128 - 8
    longest = planned(ppo_recipe(dataset_name="somebody/prompts"))["longest"]
    assert (longest["tokens"], longest["from"].split(":")[0]) == (128 - 8, "assumed")


@pytest.mark.usefixtures("no_weights")
def test_settings_change_what_they_should(ppo_recipe: Callable[..., Path]) -> None:
    recipe = ppo_recipe(max_prompt_length=100, batch_size=64, total_episodes=64)

    def moments(*words: Any) -> dict[str, int]:
        found: dict[str, int] = planned(recipe, *words)["moments"]
        return found

    usual = moments()
    recomputed = moments("--activation_checkpointing")
    assert recomputed["learning"] < usual["learning"]
    assert recomputed["throughout"] == usual["throughout"]
    assert moments("--per_device_train_batch_size", "4")["learning"] == pytest.approx(usual["learning"] / 2, rel=0.05)
    assert moments("--per_device_rollout_batch_size", "8")["rolling out"] < usual["rolling out"] / 4


def test_the_table(ppo_recipe: Callable[..., Path], tmp_path: Path) -> None:
    said = done("plan", ppo_recipe(reward_model_path=str(tmp_path / "later")))
    lines = said.out.splitlines()
    assert lines[0].startswith("align ppo on a CPU: fits, 0.")
    assert lines[2].split() == ["role", "what", "GB"]
    table = lines[2 : lines.index("", 2)]
    assert len({len(line) for line in table}) == 1
    assert table[-1].startswith("total")
    assert f"{tmp_path / 'later'} is not there" in said.out
    assert not (tmp_path / "home/out").exists()
    assert "stays mapped" in done("plan", ppo_recipe(), "--load_in_4bit").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cliprang", "0.1"], "the nearest known one is `cliprange`"),
        (["--model_name_or_path", "./nowhere"], "no such folder"),
        (["--model_name_or_path", "null"], "`model_name_or_path` is missing"),
        (["--load_in_4bit", "--use_peft", "false"], "add `use_peft: true`"),
        (["--response_length", "128"], "does not fit the model's context of 128"),
        (["--dtype", "float3"], "none of float32, bfloat16, float16"),
        (["--batch_size", "0"], "less than 1"),
        (["--lora_target_modules", "nonsense"], "Target modules"),
        (["--verb", "chat"], "align plan knows ppo, sft, reward, dpo, kto."),
        (["extra"], "is not an option"),
    ],
)
def test_bad_input(words: list[str], said: str, ppo_recipe: Callable[..., Path]) -> None:
    assert said in refused("plan", ppo_recipe(), *words)


def test_more_bad_input(ppo_recipe: Callable[..., Path], tiny: Path, tmp_path: Path) -> None:
    assert "cannot read the recipe" in refused("plan", tmp_path / "none.yaml")
    data = write_rows(tmp_path / "long.jsonl", [pair("soup " * 200, "red", "cat")])
    assert "every one of its 1 prompts is too long" in refused("plan", ppo_recipe(dataset_name=str(data)))
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"model_type": "nothing"}')
    (tmp_path / "model/model.safetensors").write_bytes(b"")
    assert "could not be loaded" in refused("plan", ppo_recipe(model_name_or_path=str(tmp_path / "model")))
    said = refused("plan", ppo_recipe(model_name_or_path="nobody/nothing"))
    assert "as a name on the hub: " in said
    assert said.endswith("; --config FOLDER takes the shape from a config.json instead")
    (tmp_path / "shape").mkdir()
    shutil.copyfile(tiny / "config.json", tmp_path / "shape/config.json")
    shape = done("plan", ppo_recipe(model_name_or_path="nobody/nothing"), "--config", tmp_path / "shape").out
    assert "The model's tokenizer is not here to read the data with: 10,000 rows are assumed" in shape
    keys = {"model_name_or_path": "x", "dataset_name": "y", "output_dir": "z"}
    assert "say of which by --verb" in refused("plan", write_recipe(tmp_path / "some.yaml", **keys))


def test_the_verb_is_told_by_keys_then_by_names() -> None:
    from dataclasses import make_dataclass

    schemas = {
        "ppo": (make_dataclass("A", ["output_dir", "kl_coef"]),),
        "sft": (make_dataclass("B", ["output_dir", "packing"]),),
    }
    assert find_verb({"output_dir", "kl_coef"}, "recipes/m/sft/lora.yaml", schemas) == "ppo"
    assert find_verb({"output_dir"}, "recipes/m/sft/lora.yaml", schemas) == "sft"
    assert find_verb({"output_dir"}, "demo/ppo.yaml", schemas) == "ppo"
