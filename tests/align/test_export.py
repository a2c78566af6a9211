"""`align export`: plain weights and adapters that plain libraries load, and a proof that notices another model."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from align.evaluate.lineage import own_weights, runs_behind
from align.export.gguf_file import GGUF
from align.export.proof import in_words
from align.models.chain import as_trained
from align.models.load import find_model, load_causal_lm, load_tokenizer
from align.models.rewards import load_as_trained, score_moments
from align.models.scores import conversation_ids
from align.run.manifest import hash_weights, is_run
from align.run.runs import listed
from preferences.files import sha256_file
from tests.align.conftest import PROMPTS, SAY, TRAIN, align, done, refused, write_recipe

Runs = dict[str, Path]


@pytest.fixture(scope="module")
def runs(tiny: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """DPO and a reward model on the base in 4 bits."""
    home = tmp_path_factory.mktemp("runs")
    return {verb: trained(home / verb, verb, tiny, pairs_file, load_in_4bit=True) for verb in ("dpo", "reward")}


def trained(folder: Path, verb: str, model: Path, data: Path, **keys: Any) -> Path:
    """A run of a few large steps: an adapter that says something."""
    recipe = {**TRAIN, "max_steps": 4, "learning_rate": 1e-2, "model_name_or_path": str(model), **keys}
    done(verb, write_recipe(folder.with_suffix(".yaml"), dataset_name=str(data), **recipe), "--output_dir", folder)
    return folder


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def rows(model: Path) -> list[list[int]]:
    tokenizer = load_tokenizer(find_model(str(model)))
    return [conversation_ids(tokenizer, prompt, "red cat dog") for prompt in PROMPTS]


def logits(model: Any, texts: list[list[int]]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [model(input_ids=torch.tensor([ids])).logits[0].float() for ids in texts]


@pytest.fixture(scope="module")
def merged(runs: Runs) -> Runs:
    for verb in ("dpo", "reward"):
        done("export", runs[verb], "--merge")
    return {verb: runs[verb].with_name(f"{verb}-merged") for verb in runs}


def test_a_4_bit_run_is_merged_into_what_it_saw(runs: Runs, merged: Runs) -> None:
    """transformers alone, without PEFT, computes what the run computed; the weights are bitsandbytes' own and B A."""
    from bitsandbytes.functional import dequantize_4bit
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    whole = AutoModelForCausalLM.from_pretrained(merged["dpo"])
    assert whole.dtype == torch.float32
    before = load_causal_lm(find_model(str(runs["dpo"])), as_trained(str(runs["dpo"]))).eval()
    for one, other in zip(logits(before, rows(runs["dpo"])), logits(whole, rows(runs["dpo"])), strict=True):
        assert (one - other).abs().max() < 2e-5
    layer = before.get_base_model().model.layers[1].mlp.up_proj
    packed = layer.base_layer.weight
    expected = dequantize_4bit(packed.data, packed.quant_state) + layer.get_delta_weight("default")
    found = load_file(merged["dpo"] / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
    assert torch.equal(found, expected.detach())
    assert (layer.get_delta_weight("default").abs().max() > 1e-3).item(), (
        "an adapter that says nothing would show nothing"
    )
    assert not (merged["dpo"] / "adapter_config.json").exists()
    assert (
        AutoTokenizer.from_pretrained(merged["dpo"]).chat_template
        == load_tokenizer(find_model(str(runs["dpo"]))).chat_template
    )
    assert (merged["dpo"] / "generation_config.json").is_file()


def test_a_reward_run_is_merged_with_its_head(runs: Runs, merged: Runs) -> None:
    """transformers' own classifier gives the run's scores, padded too; so does whatever of ours takes a reward run."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    alone = load_as_trained(str(runs["reward"])).scores(PROMPTS, SAY, 2)
    assert torch.tensor(alone).std() > 0.01
    assert load_as_trained(str(merged["reward"])).scores(PROMPTS, SAY, 2) == pytest.approx(alone, abs=1e-5)
    model = AutoModelForSequenceClassification.from_pretrained(merged["reward"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(merged["reward"])
    texts = [conversation_ids(tokenizer, prompt, text) for prompt, text in zip(PROMPTS, SAY, strict=True)]
    batch = tokenizer.pad({"input_ids": texts}, return_tensors="pt", padding_side="right")
    with torch.no_grad():
        assert model(**batch).logits[:, 0].tolist() == pytest.approx(alone, abs=1e-5)
    assert score_moments(str(merged["reward"])) == score_moments(str(runs["reward"]))


def test_the_manifest_says_where_it_comes_from_and_what_the_proof_found(runs: Runs, merged: Runs) -> None:
    for verb in ("dpo", "reward"):
        found = manifest(merged[verb])
        assert (found["verb"], found["status"], found["recipe"]["form"]) == ("export", "finished", "merge")
        assert found["parents"][0]["folder"] == str(runs[verb])
        assert found["weights_sha256"] == {"model.safetensors": sha256_file(merged[verb] / "model.safetensors")}
        assert found["proof"]["within_tolerance"] is True
        assert found["proof"]["trained"] == "base in 4 bits, computed in float32"
        assert listed(merged[verb]).result == "the same model"
        assert own_weights(str(merged[verb])) == hash_weights(runs[verb])
    proof = manifest(merged["dpo"])["proof"]
    assert in_words(proof, "", "")[-1].startswith("the same model: rounding explains up to 0.0001 nats on average, and")
    assert proof["logits"]["max_difference"] < 1e-4 < proof["logits"]["largest"]
    assert proof["responses"]["differ"] == 0.0
    assert (proof["win_rate"]["low"], proof["win_rate"]["high"]) == (0.5, 0.5)
    assert [one["verb"] for one in runs_behind(str(merged["dpo"]))[0]] == ["dpo"], "what an export learnt is its run's"


@pytest.mark.slow
def test_an_export_can_be_built_on(merged: Runs, pairs_file: Path, tmp_path: Path) -> None:
    again = trained(tmp_path / "again", "dpo", merged["dpo"], pairs_file, max_steps=1)
    assert [parent["verb"] for parent in manifest(again)["parents"]] == ["export"]
    assert [one["verb"] for one in runs_behind(str(again))[0]] == ["dpo", "dpo"]


def test_the_adapter_of_a_4_bit_run_on_the_whole_base_is_another_model(runs: Runs, tmp_path: Path) -> None:
    """It is written, for servers that quantise as training did, and the proof says what it is elsewhere."""
    said = align("export", runs["dpo"], "--adapter", "--out", tmp_path / "adapter", "--judge", runs["reward"])
    assert said.code == 1, said.err
    assert "NOT THE SAME MODEL" in said.err
    assert "vLLM: --quantization bitsandbytes" in said.err
    found = manifest(tmp_path / "adapter")
    assert found["proof"]["within_tolerance"] is False
    assert listed(tmp_path / "adapter").result == "not the same model"
    win, share = found["proof"]["win_rate"], found["proof"]["responses"]["differ"]
    assert share > 0
    assert (win["low"], win["high"]) == (0.5 - share / 2, 0.5 + share / 2)
    assert win["judge"] == str(runs["reward"])
    assert win["low"] <= win["value"] <= win["high"]
    same = "adapter_model.safetensors"
    assert (tmp_path / "adapter" / same).read_bytes() == (runs["dpo"] / same).read_bytes()
    assert as_trained(str(tmp_path / "adapter")).load_in_4bit  # type: ignore[union-attr]


def test_the_adapter_is_as_peft_and_vllm_read_it(tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    """PEFT loads it by its own base; keys and configuration are what vLLM's loader demands: only LoRA, no bias, no
    DoRA, no module saved whole, and every matrix a layer's A or B.
    """
    from peft import AutoPeftModelForCausalLM
    from safetensors import safe_open

    run = trained(tmp_path / "dpo", "dpo", tiny, pairs_file)
    done("export", run, "--adapter")
    folder = tmp_path / "dpo-adapter"
    model = AutoPeftModelForCausalLM.from_pretrained(folder).eval()
    before = load_causal_lm(find_model(str(run))).eval()
    for one, other in zip(logits(before, rows(run)), logits(model, rows(run)), strict=True):
        assert torch.equal(one, other)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny)
    assert (config["bias"], config["modules_to_save"], config["use_dora"]) == ("none", None, False)
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as weights:
        for key in weights.keys():  # noqa: SIM118
            *_, layer, side, end = key.split(".")
            assert (side in ("lora_A", "lora_B"), end) == (True, "weight")
            assert layer in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert manifest(folder)["proof"]["logits"]["max_difference"] == 0.0


def test_gguf_of_a_run(runs: Runs, tmp_path: Path) -> None:
    done("export", runs["dpo"], "--gguf", "--dtype", "q8_0", "--out", tmp_path / "gguf")
    found = manifest(tmp_path / "gguf")
    assert found["weights_sha256"] == {GGUF: sha256_file(tmp_path / "gguf" / GGUF)}
    assert found["proof"]["within_tolerance"] is True
    assert 0 < found["proof"]["log_probabilities"]["mean_difference"] < 0.05
    assert sorted(path.name for path in (tmp_path / "gguf").iterdir()) == ["manifest.json", GGUF]


@pytest.mark.parametrize("where", ["lora on the head", "head trained whole", "embedding trained whole"])
def test_tied_embeddings_part_where_one_of_them_was_trained(
    tiny: Path, pairs_file: Path, tmp_path: Path, where: str
) -> None:
    """Merged into the shared matrix, the head's change would become the embedding's, too; saved as tied, be lost."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    keys: dict[str, Any] = {
        "lora on the head": {"target_modules": ["lm_head", "q_proj"]},
        "head trained whole": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        "embedding trained whole": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    }[where]
    torch.manual_seed(0)
    model: Any = get_peft_model(load_causal_lm(find_model(str(tiny))), LoraConfig(task_type="CAUSAL_LM", r=4, **keys))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "adapter")
    load_tokenizer(find_model(str(tiny))).save_pretrained(tmp_path / "adapter")
    done("export", tmp_path / "adapter", "--merge", "--prompts", pairs_file)
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter-merged").eval()
    assert whole.config.tie_word_embeddings is False
    for one, other in zip(logits(model.eval(), rows(tiny)), logits(whole, rows(tiny)), strict=True):
        assert (one - other).abs().max() < 2e-5
    assert manifest(tmp_path / "adapter-merged")["parents"] == []


def test_a_whole_model_is_exported_in_another_type(whole_reward_run: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    done("export", whole_reward_run, "--merge", "--dtype", "bfloat16", "--out", tmp_path / "out")
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").dtype == torch.bfloat16
    proof = manifest(tmp_path / "out")["proof"]
    assert proof["exported"] == "weights in bfloat16, computed in float32"
    assert proof["scores"]["mean_difference"] > 0
    words = refused("export", whole_reward_run, "--adapter", "--out", tmp_path / "other")
    assert "its training changed the model itself, so there is no adapter; give --merge" in words


def test_what_is_refused_is_refused_before_anything_is_written(
    runs: Runs, merged: Runs, tiny: Path, reward_run: Path, tmp_path: Path
) -> None:
    dpo, out = runs["dpo"], tmp_path / "out"
    assert "say in which one form" in refused("export", dpo)
    assert "say in which one form" in refused("export", dpo, "--merge", "--gguf")
    assert "not a run, nor an adapter" in refused("export", tiny, "--merge")
    assert "give --overwrite to replace it, or another --out" in refused("export", dpo, "--merge")
    assert "is a type of GGUF" in refused("export", dpo, "--merge", "--dtype", "q8_0", "--out", out)
    assert "keeps the type that it was trained in" in refused("export", dpo, "--adapter", "--dtype", "float16")
    assert "says nothing that could be judged" in refused("export", runs["reward"], "--merge", "--judge", reward_run)
    assert "has no place in GGUF" in refused("export", runs["reward"], "--gguf", "--out", out)
    assert "not a reward model" in refused("export", dpo, "--merge", "--judge", dpo, "--out", out)
    assert "would replace its own input" in refused("export", dpo, "--merge", "--out", dpo, "--overwrite")
    assert "what it holds is not a run" in refused("export", dpo, "--merge", "--out", tiny, "--overwrite")
    assert "no such file" in refused("export", dpo, "--merge", "--prompts", "./none.jsonl", "--out", out)
    assert not out.exists()


def test_an_architecture_that_llama_cpp_would_compute_otherwise_is_refused(runs: Runs, tmp_path: Path) -> None:
    base, run = tmp_path / "base", tmp_path / "dpo"
    shutil.copytree(find_model(str(runs["dpo"])).base, base)
    shutil.copytree(runs["dpo"], run)
    (run / "manifest.json").unlink()
    adapter = json.loads((run / "adapter_config.json").read_text())
    (run / "adapter_config.json").write_text(json.dumps(adapter | {"base_model_name_or_path": str(base)}))
    config = json.loads((base / "config.json").read_text())
    stretched = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    (base / "config.json").write_text(json.dumps(config | {"rope_parameters": stretched}))
    assert "stretches its positions by 'dynamic'" in refused("export", run, "--gguf")
    (base / "config.json").write_text(json.dumps(config | {"model_type": "gpt_neox", "architectures": None}))
    assert "--gguf writes gemma3_text, llama, mistral, qwen2, qwen3, and this is gpt_neox" in refused(
        "export", run, "--gguf"
    )


@pytest.mark.slow
def test_an_export_that_is_killed_leaves_nothing_and_goes_again(runs: Runs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["-c", "from align.cli import main; main()", "export", str(runs["dpo"]), "--merge", "--out", str(out)]
    process = subprocess.Popen([sys.executable, *words], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not any(tmp_path.glob(".out.*/model.safetensors")):  # its weights are written, and the proof is not
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    done("export", runs["dpo"], "--merge", "--out", out)
    assert is_run(out)


@pytest.mark.slow
def test_8_bits(tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    """The trained model rounds its activations, which no plain weights do: that much is allowed, and no more."""
    run = trained(tmp_path / "dpo", "dpo", tiny, pairs_file, load_in_8bit=True)
    done("export", run, "--merge")
    proof = manifest(tmp_path / "dpo-merged")["proof"]
    assert proof["trained"] == "base in 8 bits, computed in float32"
    assert 0 < proof["log_probabilities"]["mean_difference"] < proof["log_probabilities"]["tolerance"] == 0.02


@pytest.mark.slow
def test_a_checkpoint_is_exported_beside_its_run(tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    run = trained(tmp_path / "dpo", "dpo", tiny, pairs_file, save_strategy="steps", save_steps=2, save_total_limit=2)
    said = done("export", run / "checkpoint-2", "--merge", "--dtype", "float16")
    assert said.out.strip() == str(tmp_path / "dpo-checkpoint-2-merged")
    assert manifest(tmp_path / "dpo-checkpoint-2-merged")["parents"][0]["folder"] == str(run)
