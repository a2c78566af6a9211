"""`align export`: a trained model as others read it, and the proof that it is still the trained model.

--merge     plain weights: an adapter and its base as one, for transformers, vLLM and whatever else reads safetensors
--adapter   the adapter alone, as PEFT and vLLM read it
--gguf      one file for llama.cpp

The folder is written whole or not at all, and its manifest.json says where the model comes from and what the proof
found. docs/export.md has the commands that serve each form.
"""

import gc
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from align.data.lengths import context_length, prompts_that_fit
from align.data.load import data_facts, load_demonstrations, load_pairs, load_prompts, parted
from align.export.merge import load_as_it_is, merged, serving_dtype
from align.export.proof import EIGHT_BITS, LENGTH, PROMPTS, TOLERANCE, compare_policies, compare_reward_models, in_words
from align.models.chain import HOW_HELD, as_trained, check_parent, stage_facts
from align.models.load import ModelSource, device, find_model, has_score_head, load_config, load_tokenizer, loading
from align.models.rewards import load_as_trained
from align.run.disk import full_disk_is_said
from align.run.manifest import check_output_folder, described, now, parents_of, run_of
from align.run.progress import say
from preferences.errors import BadInput
from preferences.files import read_json, sha256_file, whole_folder, write_text

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase
    from trl import ModelConfig

Form = Literal["merge", "adapter", "gguf"]
_SUFFIX = {"merge": "merged", "adapter": "adapter", "gguf": "gguf"}


class Wanted(NamedTuple):
    """A checked export."""

    form: Form
    source: ModelSource
    run: Path | None  # that made the model
    held: "ModelConfig | None"  # how the run held the base
    scores: bool  # it is a reward model
    dtype: "torch.dtype"
    type_name: str  # of the weights: "float32", ..., "q8_0"
    out: Path
    tokenizer: "PreTrainedTokenizerBase"
    data: str
    texts: list[Any]  # prompts, or (prompt, response) for a reward model
    judge: str | None


def run_export(
    name: str,
    form: Form,
    out: str | None = None,
    prompts: str | None = None,
    judge: str | None = None,
    dtype: str | None = None,
    *,
    overwrite: bool = False,
) -> tuple[dict[str, Any], Path]:
    """Export a run's model: (its manifest, its folder). Raises BadInput before anything slow."""
    wanted = _checked(name, form, out, prompts, judge, dtype, overwrite)
    started = time.monotonic()
    manifest = _manifest(wanted)
    with full_disk_is_said(wanted.out), whole_folder(wanted.out) as folder:
        exported, how = _written(wanted, folder)
        trained = load_as_it_is(wanted.source, wanted.held)
        trained = (trained if _quantised(wanted.held) else trained.to(device())).eval()
        eight = wanted.held is not None and wanted.held.load_in_8bit
        allowed = max(TOLERANCE[wanted.type_name], EIGHT_BITS if eight else 0.0)
        if wanted.scores:
            proof = compare_reward_models(trained, exported, wanted.tokenizer, wanted.texts, allowed)
        else:
            scorer = load_as_trained(wanted.judge) if wanted.judge else None
            proof = compare_policies(trained, exported, wanted.tokenizer, wanted.texts, allowed, scorer)
        files = [path for path in sorted(folder.iterdir()) if path.suffix in (".safetensors", ".gguf")]
        for path in files:
            path.chmod(0o644)  # transformers gives nobody else a look, and a server may be somebody else
        proof |= {"data": wanted.data, "trained": _held_words(wanted), "exported": how}
        manifest |= {"status": "finished", "finished_at": now(), "seconds": round(time.monotonic() - started, 3)}
        manifest |= {"weights_sha256": {path.name: sha256_file(path) for path in files}, "proof": proof}
        write_text(folder / "manifest.json", json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    for line in in_words(proof, proof["trained"], proof["exported"]):
        say(line)
    return manifest, wanted.out


# --- what is checked before anything slow -----------------------------------------------------------------------


def _checked(
    name: str, form: Form, out: str | None, prompts: str | None, judge: str | None, dtype: str | None, overwrite: bool
) -> Wanted:
    import torch

    source = find_model(name)
    run = run_of(source.adapter or source.base)
    if run is None and source.adapter is None:
        raise BadInput(f"{name}: not a run, nor an adapter; there is nothing of training in it to export")
    held = as_trained(name)
    scores = has_score_head(source)
    if scores and judge is not None:
        raise BadInput(f"--judge: {name} is a reward model, and says nothing that could be judged")
    if judge is not None:
        if not has_score_head(find_model(judge)):
            raise BadInput(f"--judge {judge}: not a reward model (no score head); `align reward` makes one")
        check_parent(find_model(judge))
    if form == "adapter":
        _check_adapter(source, scores, dtype)
    if form == "gguf":
        from align.export.gguf_file import check_gguf

        check_gguf(source, scores)
    elif dtype == "q8_0":
        raise BadInput("--dtype q8_0: is a type of GGUF; give it with --gguf")
    check_parent(source)
    folder = Path(out) if out else _beside(run or Path(name), Path(name), form)
    check_output_folder(folder, "export", resume=False, overwrite=overwrite)
    for place in source.folders:
        if place.resolve().is_relative_to(folder.resolve()):
            raise BadInput(f"--out {folder}: the export would replace its own input {place}; give another folder")
    served = serving_dtype(source)
    if dtype is not None and dtype != "q8_0":
        served = getattr(torch, dtype)
    tokenizer = load_tokenizer(source)
    data, texts = _texts(run, prompts, scores)
    limit = context_length(load_config(source))
    turns = [[*prompt, {"role": "assistant", "content": text}] for prompt, text in texts] if scores else texts
    fitting = prompts_that_fit(tokenizer, turns, 1 if scores else LENGTH, limit, None, data)
    texts = [texts[number] for number in fitting][: 4 * PROMPTS if scores else PROMPTS]
    type_name = "q8_0" if dtype == "q8_0" else str(served).removeprefix("torch.")
    if type_name not in ("float32", "bfloat16", "float16", "q8_0"):
        raise BadInput(f"{name}: its weights are {type_name}, which nothing serves; give --dtype bfloat16")
    return Wanted(form, source, run, held, scores, served, type_name, folder, tokenizer, data, texts, judge)


def _beside(run: Path, model: Path, form: Form) -> Path:
    """runs/dpo-merged; of a checkpoint runs/dpo-checkpoint-40-merged."""
    step = "" if run.resolve() == model.resolve() else f"-{model.resolve().name}"
    return run.parent / f"{run.name}{step}-{_SUFFIX[form]}" if run.name else Path(f"{run.resolve()}-{_SUFFIX[form]}")


def _check_adapter(source: ModelSource, scores: bool, dtype: str | None) -> None:
    """Raise BadInput for what vLLM's loader of adapters does not take, or what is none."""
    if source.adapter is None:
        raise BadInput(f"{source.name}: its training changed the model itself, so there is no adapter; give --merge")
    if dtype is not None:
        raise BadInput("--dtype: an adapter keeps the type that it was trained in; leave it out")
    config = read_json(Path(source.adapter) / "adapter_config.json")
    whole = None if scores else config.get("modules_to_save")  # a reward model is for PEFT only, and needs its head
    why = {
        f"trained {', '.join(whole or [])} whole (`lora_modules_to_save`)": bool(whole),
        "is DoRA": bool(config.get("use_dora")),
        f"trained biases (bias: {config.get('bias')})": config.get("bias", "none") != "none",
        f"is of another kind than LoRA ({config.get('peft_type')})": config.get("peft_type") != "LORA",
    }
    reason = next((words for words, given in why.items() if given), None)
    if reason is not None:
        raise BadInput(f"{source.name}: {reason}, which servers of adapters don't take; give --merge")


def _texts(run: Path | None, name: str | None, scores: bool) -> tuple[str, list[Any]]:
    """(name of the data, prompts); for a reward model (prompt, response), two a pair. Raises BadInput."""
    recipe = read_json(run / "manifest.json").get("recipe") or {} if run else {}
    own = name is None
    if name is None:
        name = recipe.get("dataset_name")
    if not name:
        raise BadInput("no prompts to compare the models on; give --prompts DATA")
    config = recipe.get("dataset_config") if own else None
    splits = [recipe.get("dataset_test_split"), recipe.get("dataset_train_split")] if own else []
    wanted = list(dict.fromkeys(split for split in (*splits, "test", "validation", "train") if split))
    problem: BadInput | None = None
    for split in wanted[:1] if Path(name).is_file() else wanted:
        for read in (_of_pairs,) if scores else (_of_prompts, _of_pairs, _of_demonstrations):
            try:
                found = read(name, split, config)
            except BadInput as error:
                problem = problem or error
                continue
            if found:
                return name, found if scores else [prompt for prompt, _ in found]
    raise BadInput(f"{problem}; give other prompts by --prompts DATA" if problem else f"{name}: no prompts in it")


def _of_prompts(name: str, split: str, config: str | None) -> list[tuple[Any, str]]:
    return [(turns, "") for turns in load_prompts(name, split, config)]


def _of_pairs(name: str, split: str, config: str | None) -> list[tuple[Any, str]]:
    from align.data.load import as_turns

    found = []
    for row in load_pairs(name, split, config):
        prompt, *responses = parted(row)
        found += [(as_turns(prompt), _last(response)) for response in responses]
    return [one for one in found if one[0]]


def _of_demonstrations(name: str, split: str, config: str | None) -> list[tuple[Any, str]]:
    found = []
    for row in load_demonstrations(name, split, config):
        turns = row.get("messages") or []
        until = next((number for number, turn in enumerate(turns) if turn["role"] == "assistant"), 0)
        if turns[:until]:
            found.append((turns[:until], ""))
    return found


def _last(response: Any) -> str:
    return response if isinstance(response, str) else str(response[-1]["content"])


# --- the forms --------------------------------------------------------------------------------------------------


def _written(wanted: Wanted, folder: Path) -> tuple[Any, str]:
    """Write the form into the folder; the model read back from there by plain transformers, and how it computes."""
    if wanted.form == "adapter":
        return _write_adapter(wanted, folder)
    import torch

    whole = wanted.type_name == "q8_0"  # which is to be rounded once
    model = merged(wanted.source, wanted.held, torch.float32 if whole else wanted.dtype)
    if wanted.form == "gguf":
        from align.export.gguf_file import GGUF, write_gguf

        write_gguf(model, wanted.tokenizer, wanted.type_name, folder / GGUF, wanted.out.name)
    else:
        say(f"writing {wanted.out}")
        model.save_pretrained(folder)
        wanted.tokenizer.save_pretrained(folder)
    config = model.config
    del model
    gc.collect()
    return _read_back(wanted, folder, config)


def _read_back(wanted: Wanted, folder: Path, config: Any) -> tuple[Any, str]:
    """The export as plain transformers reads it: no PEFT, nothing of ours."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    dtype = _computing(wanted.dtype)
    if wanted.form == "gguf":
        from align.export.gguf_file import read_gguf

        model = read_gguf(folder, config, dtype).to(device())
    else:
        auto = AutoModelForSequenceClassification if wanted.scores else AutoModelForCausalLM
        with loading(ModelSource(str(folder), str(folder), None), "the export"):
            model = auto.from_pretrained(folder, dtype=dtype).to(device()).eval()
    return model, f"weights in {wanted.type_name}, computed in {_short(dtype)}"


def _write_adapter(wanted: Wanted, folder: Path) -> tuple[Any, str]:
    """The adapter's own bytes, with a configuration that says which base they are for. It is compared on the base as a
    server holds it: not quantised, in its own type.
    """
    assert wanted.source.adapter is not None
    adapter = Path(wanted.source.adapter)
    shutil.copyfile(adapter / "adapter_model.safetensors", folder / "adapter_model.safetensors")
    config = read_json(adapter / "adapter_config.json")
    base = Path(wanted.source.base)
    config["base_model_name_or_path"] = str(base.resolve()) if base.is_dir() else wanted.source.base
    config |= {"revision": wanted.source.revision, "inference_mode": True}
    write_text(folder / "adapter_config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
    wanted.tokenizer.save_pretrained(folder)
    if _quantised(wanted.held):
        say(
            "the adapter was trained on a quantised base: serve it on one (vLLM: --quantization bitsandbytes), or"
            " export with --merge; on the whole base it is another model, as the proof will say"
        )
    from trl import ModelConfig

    dtype = _computing(wanted.dtype)
    source = wanted.source._replace(name=str(folder), adapter=str(folder))
    model = load_as_it_is(source, ModelConfig(dtype=_short(dtype))).to(device()).eval()
    return model, f"the adapter on the base in {_short(dtype)}"


def _computing(dtype: "torch.dtype") -> "torch.dtype":
    """What an export is computed in to compare it: its own type, or fp32 on a CPU, which computes others badly."""
    import torch

    return dtype if device().type == "cuda" else torch.float32


def _quantised(held: "ModelConfig | None") -> bool:
    return held is not None and bool(held.load_in_4bit or held.load_in_8bit)


def _held_words(wanted: Wanted) -> str:
    from align.models.load import weight_dtype

    held = wanted.held
    bits = "4 bits" if held is not None and held.load_in_4bit else "8 bits" if _quantised(held) else None
    computed = f"computed in {_short(weight_dtype(held))}"
    return f"base in {bits}, {computed}" if bits else computed


def _short(dtype: "torch.dtype") -> str:
    return str(dtype).removeprefix("torch.")


# --- the manifest -----------------------------------------------------------------------------------------------


def _manifest(wanted: Wanted) -> dict[str, Any]:
    recipe: dict[str, Any] = {"run": wanted.source.name, "form": wanted.form, "dtype": wanted.type_name}
    before = read_json(wanted.run / "manifest.json") if wanted.run else {}
    if wanted.form == "adapter":  # whoever loads it needs to know how its base is to be held
        known = before.get("recipe") or {}
        recipe |= {key: known[key] for key in HOW_HELD if key in known}
    else:
        recipe["use_peft"] = False
    inputs = {"model": stage_facts(wanted.source, wanted.tokenizer), "prompts": data_facts(wanted.data)}
    names: Sequence[str] = [wanted.source.name]
    if wanted.judge:
        from align.models.load import model_facts

        inputs["judge"] = model_facts(find_model(wanted.judge))
    manifest = described("export", recipe, inputs, parents_of(names), seed=0)
    if "scores" in before:  # the mean and spread of a reward run's scores, which `normalize_scores` needs
        manifest["scores"] = before["scores"]
    return manifest
