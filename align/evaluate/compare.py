"""`align evaluate`: every model answers the same held-out prompts; judges score; models are compared with the base.

What is said here is said per prompt, and every number carries an interval over prompts.
"""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from align.config import parse
from align.data.lengths import check_prompts, context_length
from align.data.load import as_turns, data_facts, load_pairs, load_prompts
from align.evaluate.judges import Scorer, function_judge, reward_judge
from align.models.load import ModelSource, find_model, load_causal_lm, load_config, load_tokenizer, model_facts
from align.models.sampling import sample, seed_of
from align.run.manifest import Run, check_output_folder, is_run, start_run
from align.run.metrics import curves, held_out_looks
from align.run.progress import say
from preferences.errors import BadInput
from preferences.files import read_json, read_jsonl, write_jsonl, write_text
from preferences.stats.winrate import accuracy, mean_interval, win_rate

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass
class EvaluateConfig:
    """The keys of an evaluation recipe."""

    output_dir: str
    models: dict[str, str]  # name: model; what is compared
    dataset_name: str  # its prompts, and its pairs for the reward model's accuracy
    base: str = "base"  # the name of the model that the others are compared with
    dataset_config: str | None = None
    dataset_split: str = "test"
    num_prompts: int | None = None  # the first ones; all by default
    reward_model_path: str | None = None  # a reward run, as a judge
    truth: str | None = None  # file.py:function, where the truth is known, as with simulated raters
    title: str | None = None
    max_new_tokens: int = 256
    temperature: float = 0.7
    batch_size: int = 16
    seed: int = 42

    def __post_init__(self) -> None:
        for key in ("num_prompts", "max_new_tokens", "batch_size"):
            if getattr(self, key) is not None and getattr(self, key) < 1:
                raise ValueError(f"key `{key}`: {getattr(self, key)} is less than 1")
        if self.temperature <= 0:
            raise ValueError(f"key `temperature`: {self.temperature} is not above 0")


class Comparison(NamedTuple):
    """The open run, what its metrics.json holds, and one record a prompt, as in its samples.jsonl."""

    run: Run
    metrics: dict[str, Any]
    samples: list[dict[str, Any]]


def compare(recipe: dict[str, Any], where: str, *, resume: bool = False, overwrite: bool = False) -> Comparison:
    """Sample, judge and compare. Each model's responses are kept as soon as they are whole, for --resume.

    Raises BadInput before anything is written.
    """
    (args,) = parse(recipe, (EvaluateConfig,), where)
    if args.base not in args.models:
        raise BadInput(
            f"{where}: key `base`: there is no model {args.base!r} among the models {', '.join(args.models)}"
        )
    for name in args.models:
        if not re.fullmatch(r"[\w .+-]+", name) or name.startswith("."):
            raise BadInput(f"{where}: key `models`: {name!r} is not a plain name; it becomes part of a file's name")
    if args.reward_model_path is None and args.truth is None:
        raise BadInput(f"{where}: no judge; add `reward_model_path: runs/reward`")
    check_output_folder(args.output_dir, "evaluate", resume, overwrite)
    prompts = load_prompts(args.dataset_name, args.dataset_split, args.dataset_config)[: args.num_prompts]
    sources = {name: find_model(path) for name, path in args.models.items()}
    for source in sources.values():
        context = context_length(load_config(source))
        check_prompts(load_tokenizer(source), prompts, args.max_new_tokens, context, args.dataset_name)
    judges: dict[str, Scorer] = {}
    kinds: dict[str, dict[str, str]] = {}
    if args.truth:
        judges["truth"] = function_judge(args.truth)
        kinds["truth"] = {"kind": "known truth", "source": args.truth}
    if args.reward_model_path:
        judges["reward"] = reward_judge(args.reward_model_path, prompts, args.max_new_tokens, args.batch_size)
        kinds["reward"] = {"kind": "reward model", "source": args.reward_model_path}
    held_out = _held_out(args, judges) if "reward" in judges else None

    paths = [*args.models.values(), args.reward_model_path or "", args.dataset_name]
    run = start_run(
        "evaluate",
        recipe,
        inputs={
            "dataset": data_facts(args.dataset_name),
            **{f"model {name}": model_facts(source) for name, source in sources.items()},
            **({"reward model": model_facts(find_model(args.reward_model_path))} if args.reward_model_path else {}),
        },
        parents=list(dict.fromkeys(path for path in paths if path and is_run(path))),
        seed=args.seed,
        resume=resume,
    )
    responses = {name: _responses(name, source, prompts, args, run) for name, source in sources.items()}
    kl = _kl_to_base(responses, sources, args)

    say("judging")
    names = list(args.models)
    scores: dict[str, dict[str, list[float]]] = {
        judge: {name: scorer([(p, r["text"]) for p, r in zip(prompts, responses[name], strict=True)]) for name in names}
        for judge, scorer in judges.items()
    }
    models = {}
    for name in names:
        texts = [response["text"] for response in responses[name]]
        models[name] = {
            "judges": {
                judge: {"candidate": name, "baseline": args.base, **win_rate(_preferences(by[name], by[args.base]))}
                for judge, by in scores.items()
                if name != args.base
            },
            "kl": mean_interval(kl[name]) if name in kl else None,
            "length": mean_interval([len(text) for text in texts]),
            "tokens": mean_interval([len(response["ids"]) for response in responses[name]]),
            "finished": sum(response["ended"] for response in responses[name]) / len(prompts),
            "tags": {},
        }
        if "truth" in scores:
            models[name]["truth"] = mean_interval(scores["truth"][name])
    metrics: dict[str, Any] = {
        "format": 1,
        "title": args.title or "Does the aligned model beat the base?",
        "simulated": _is_simulated(args.dataset_name),
        "base": args.base,
        "prompts": len(prompts),
        "models": models,
        "judges": kinds,
        "reward_model": _reward_model(args, held_out, scores) if held_out else None,
        "curves": {Path(path).name: found for path in dict.fromkeys(paths) if path and (found := curves(Path(path)))},
        "held_out_looks": {
            Path(path).name: found for path in dict.fromkeys(paths) if path and (found := held_out_looks(Path(path)))
        },
        "provenance": _provenance(run, args, sources),
        "seconds": round(time.monotonic() - run.started, 1),
    }
    samples = [
        {
            "prompt": prompt,
            "responses": {name: responses[name][number]["text"] for name in names},
            "scores": {judge: {name: by[name][number] for name in names} for judge, by in scores.items()},
            "tokens": {name: len(responses[name][number]["ids"]) for name in names},
        }
        for number, prompt in enumerate(prompts)
    ]
    write_text(run.folder / "metrics.json", json.dumps(metrics, indent=2, sort_keys=True, allow_nan=False) + "\n")
    write_jsonl(run.folder / "samples.jsonl", samples)
    return Comparison(run, metrics, samples)


def _responses(
    name: str, source: ModelSource, prompts: list[Any], args: EvaluateConfig, run: Run
) -> list[dict[str, Any]]:
    """One response to each prompt, with its tokens and its log-probability under its own model; kept in the run."""

    kept = run.folder / f"responses-{name}.jsonl"
    if kept.is_file():
        say(f"{name}: responses are there already")
        return [row for _, row in read_jsonl(kept)]
    tokenizer, model = load_tokenizer(source), _ready(load_causal_lm(source))
    rows: list[dict[str, Any]] = []
    for start in range(0, len(prompts), args.batch_size):
        batch = prompts[start : start + args.batch_size]
        # each model meets a prompt with the same draws
        seeds = [seed_of(args.seed, number) for number in range(start, start + len(batch))]
        said = sample(model, tokenizer, batch, seeds, max_new_tokens=args.max_new_tokens, temperature=args.temperature)
        totals = _total_logprobs(model, said.prompts, said.responses, args.temperature)
        for prompt, ids, ended, text, total in zip(
            said.prompts, said.responses, said.ended, said.texts, totals, strict=True
        ):
            rows.append({"text": text.strip(), "ended": ended, "prompt_ids": prompt, "ids": ids, "logprob": total})
        say(f"{name}: {len(rows)} of {len(prompts)} prompts")
    write_jsonl(kept, rows)
    return rows


def _kl_to_base(
    responses: dict[str, list[dict[str, Any]]], sources: dict[str, ModelSource], args: EvaluateConfig
) -> dict[str, list[float]]:
    """Per response, log pi(y) - log pi_base(y) in nats on what the model itself sampled: its mean over prompts is an
    unbiased estimate of the KL divergence at the sampling temperature. Left out are the base itself, and models with
    another vocabulary, whose tokens mean nothing to the base.
    """
    base = sources[args.base]
    model, tokenizer = _ready(load_causal_lm(base)), load_tokenizer(base)
    result = {}
    for name, rows in responses.items():
        if name == args.base or load_tokenizer(sources[name]).get_vocab() != tokenizer.get_vocab():
            continue
        values: list[float] = []
        for start in range(0, len(rows), args.batch_size):
            batch = rows[start : start + args.batch_size]
            prompts, said = [row["prompt_ids"] for row in batch], [row["ids"] for row in batch]
            totals = _total_logprobs(model, prompts, said, args.temperature)
            values += [row["logprob"] - total for row, total in zip(batch, totals, strict=True)]
        result[name] = values
    return result


def _total_logprobs(
    model: Any, prompts: list[list[int]], responses: list[list[int]], temperature: float
) -> list[float]:
    """Summed log-probability of each response (token ids) after its prompt."""
    import torch

    from align.models.logprobs import last_states, response_logprobs, to_rows

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    rows = to_rows(prompts, responses, model.device)
    with torch.no_grad():
        logprobs, _ = response_logprobs(inner, last_states(inner, rows.ids), rows, temperature)
    return [float(total) for total in logprobs.sum(-1)]


def _preferences(candidate: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """1 where the candidate scores higher, 0 where the baseline does, 0.5 where they are equal."""
    return [0.5 + 0.5 * ((c > b) - (c < b)) for c, b in zip(candidate, baseline, strict=True)]


class HeldOut(NamedTuple):
    """Held-out pairs as (chosen, rejected) scores, by each judge and by length; `groups` are None where not said."""

    groups: list[str] | None
    scores: dict[str, tuple[list[float], list[float]]]


def _held_out(args: EvaluateConfig, judges: dict[str, Scorer]) -> HeldOut:
    pairs = _ranked(load_pairs(args.dataset_name, args.dataset_split, args.dataset_config), args.dataset_name)
    say(f"scoring {len(pairs)} held-out pairs with the reward model")
    chosen, rejected = (
        [(as_turns(row["prompt"]), as_turns(row[side])[-1]["content"]) for row in pairs]
        for side in ("chosen", "rejected")
    )
    scores = {judge: (scorer(chosen), scorer(rejected)) for judge, scorer in judges.items()}
    if "truth" in scores and scores["truth"][0] == scores["truth"][1]:
        raise BadInput(f"{args.truth}: gives both sides of every held-out pair the same score; it tells nothing apart")
    scores["length"] = ([float(len(text)) for _, text in chosen], [float(len(text)) for _, text in rejected])
    return HeldOut(list(pairs["group"]) if "group" in pairs.column_names else None, scores)


def _ranked(pairs: "Dataset", name: str) -> "Dataset":
    """The pairs that raters ranked: what one of them wrote over a response is no verdict of the raters."""
    if "source" not in pairs.column_names:
        return pairs
    ranked = [number for number, source in enumerate(pairs["source"]) if source != "edited"]
    if not ranked:
        raise BadInput(f"{name}: all held-out pairs are rewritten responses over their originals; rank more items")
    return pairs.select(ranked)


def _reward_model(args: EvaluateConfig, held_out: HeldOut, scores: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """How often the reward model agrees with held-out preferences, beside two things that know less than it should:
    "the longer one wins", and, where the truth is known, the raters themselves.
    """
    groups = held_out.groups
    right = {judge: _preferences(*sides) for judge, sides in held_out.scores.items()}
    result: dict[str, Any] = {
        "source": args.reward_model_path,
        "test": accuracy(right["reward"], groups),
        "longer_wins": accuracy(right["length"], groups),
    }
    if "truth" in right:
        from scipy.stats import spearmanr

        decided = [number for number, value in enumerate(right["truth"]) if value != 0.5]
        kept_groups = [groups[number] for number in decided] if groups else None
        by_reward = [right["reward"][n] if right["truth"][n] == 1.0 else 1.0 - right["reward"][n] for n in decided]
        points = [
            [t, r] for name in args.models for t, r in zip(scores["truth"][name], scores["reward"][name], strict=True)
        ]
        correlation = spearmanr(points).statistic if len(points) > 2 else float("nan")
        result["truth"] = {
            "pairs": accuracy(by_reward, kept_groups),
            "raters": accuracy([right["truth"][n] for n in decided], kept_groups),
            "correlation": None if correlation != correlation else float(correlation),
            "points": points,
        }
    return result


def _provenance(run: Run, args: EvaluateConfig, sources: dict[str, ModelSource]) -> dict[str, str]:
    facts = {f"model {name}": source.name for name, source in sources.items()}
    facts |= {f"{folder} sha256 of {file}": digest for folder, file, digest in _digests(run)}
    facts |= {"data": args.dataset_name, "seed": str(args.seed), "temperature": str(args.temperature)}
    facts |= {"new tokens at most": str(args.max_new_tokens), "started": run.manifest["started_at"]}
    facts |= {"commit": str(run.manifest["git_commit"])}
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in run.manifest["versions"].items())
    return facts


def _digests(run: Run) -> list[tuple[str, str, str]]:
    """(folder, file, hash) of the inputs, each once."""
    found: dict[tuple[str, str], str] = {}
    for facts in run.manifest["inputs"].values():
        for folder, hashes in facts["sha256"].items():
            if isinstance(hashes, dict):
                found.update({(folder, file): digest for file, digest in hashes.items()})
            else:
                found[(facts["name"], folder)] = hashes
    return [(folder, file, digest) for (folder, file), digest in found.items()]


def _is_simulated(dataset_name: str) -> bool:
    manifest = Path(dataset_name) / "manifest.json"
    return manifest.is_file() and bool(read_json(manifest).get("simulated"))


def _ready(model: Any) -> Any:
    import torch

    return (model.to("cuda") if torch.cuda.is_available() else model).eval()
