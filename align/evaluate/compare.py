"""`align evaluate`: every model answers the same prompts; judges judge; the models are compared with the base.

It reads as its steps. Each step is one function of another file; docs/evaluation.md says what comes of them.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from align.data.load import data_facts
from align.evaluate.config import EvaluateConfig, read_evaluation
from align.evaluate.evidence import Evidence, Prompt, Said, main_numbers
from align.evaluate.frontier import frontier, open_frontier
from align.evaluate.harness import ask_harness, open_harness
from align.evaluate.held_out import open_held_out, reward_model
from align.evaluate.judge_agreement import agreement, judge_facts
from align.evaluate.judges import open_judges
from align.evaluate.kl import kl_to_base
from align.evaluate.measures import measures
from align.evaluate.perplexity import open_texts, perplexity
from align.evaluate.prompts import load_evaluation_prompts
from align.evaluate.responses import Candidate, answer_share, answers, open_models, sampling
from align.evaluate.seen import trained_on
from align.evaluate.slices import by_tag, challenge_sets, gaps
from align.evaluate.verdicts import many_models, pairs, verdict_by
from align.models.load import find_model, hub_commit, model_facts
from align.report.worse import worse
from align.run.cache import Cache
from align.run.launch import check_world
from align.run.manifest import Run, check_output_folder, is_run, start_run
from align.run.metrics import curves, held_out_looks
from align.run.progress import say
from align.run.strategies import asked_strategy, refuse
from preferences.errors import BadInput
from preferences.files import read_json, write_jsonl, write_text
from preferences.stats.winrate import mean_interval


class Comparison(NamedTuple):
    """The open run, what its metrics.json holds, and one record a prompt, as in its samples.jsonl."""

    run: Run
    metrics: dict[str, Any]
    samples: list[dict[str, Any]]


def compare(recipe: dict[str, Any], where: str, *, resume: bool = False, overwrite: bool = False) -> Comparison | None:
    """Sample, judge and compare. Responses are kept as they come, for --resume; verdicts in the cache.

    Several processes share the sampling, through the cache; the first of them does the rest, and None is what comes of
    the others. Raises BadInput before anything is written.
    """
    # 1. Everything is checked: keys, files, models, judges, and that the prompts fit them.
    refuse("evaluate", "full", asked_strategy())
    args = read_evaluation(recipe, where)
    if not args.judges:
        raise BadInput(f"{where}: no judge; add `judges: {{reward: runs/reward}}`")
    check_output_folder(args.output_dir, "evaluate", resume, overwrite)
    cache = Cache(args.cache_dir)
    prompts = load_evaluation_prompts(args)
    models = open_models(args, prompts, where)
    judges = open_judges(args, prompts, where)
    held_out = open_held_out(args, judges)
    plan = open_frontier(args, models, judges, prompts, where)
    harness = open_harness(args, where)
    texts = open_texts(args, models)
    seen = trained_on(args.models, prompts)

    # 2. Of several processes, each makes its share of the responses; one goes on, and opens the run.
    if not _this_process_goes_on(models, prompts, args, cache, where):
        return None
    run = start_run("evaluate", recipe, inputs=_inputs(args), parents=_parents(args), seed=args.seed, resume=resume)

    # 3. Every model answers every prompt, one model after the other.
    responses = {name: answers(model, prompts, args, run.folder, cache) for name, model in models.items()}
    kl = kl_to_base(models, prompts, responses, args, cache)
    nats = perplexity(models, texts, args.batch_size, cache)

    # 4. The judges judge, one after the other.
    judged = {name: judge.judge(args.base, prompts, responses, cache) for name, judge in judges.items()}
    evidence = Evidence(args.base, prompts, responses, judged)

    # 5. What was said becomes numbers: pure functions of the evidence.
    say("computing")
    metrics: dict[str, Any] = {
        "format": 1,
        "title": args.title or "Does the aligned model beat the base?",
        "simulated": _is_simulated(args.dataset_name),
        "base": args.base,
        "prompts": len(main_numbers(prompts)),
        "trained_on": seen,
        "verdict_by": verdict_by(evidence),
        "sampling": sampling(models, args),
        "judges": judge_facts(evidence),
        "models": {name: _model(evidence, model, kl[name]) for name, model in models.items()},
        "many_models": many_models(evidence),
        "judge_agreement": agreement(evidence),
    }
    for name, found in measures(evidence, nats).items():
        metrics["models"][name]["measures"] = found
    for name, slices in by_tag(evidence).items():
        metrics["models"][name]["tags"] = slices
    metrics["challenge_sets"] = challenge_sets(evidence)
    metrics["fairness"] = gaps(evidence)
    metrics["reward_model"] = None if held_out is None else reward_model(held_out, judges, evidence, cache)

    # 6. How far a run and best of n went, and what they won by it.
    metrics["frontier"] = None if plan is None else frontier(plan, args, prompts, run.folder, cache)

    # 7. Tasks of lm-evaluation-harness.
    metrics["harness"] = None if harness is None else ask_harness(harness, models, args.batch_size, run.folder)
    metrics["worse"] = worse(metrics)

    # 8. Where it all comes from.
    runs = list(dict.fromkeys(map(str, _parents(args))))
    metrics["curves"] = {Path(path).name: drawn for path in runs if (drawn := curves(Path(path)))}
    metrics["held_out_looks"] = {Path(path).name: looks for path in runs if (looks := held_out_looks(Path(path)))}
    metrics["provenance"] = _provenance(run, args, models)
    metrics["seconds"] = round(time.monotonic() - run.started, 1)
    samples = _samples(evidence)
    write_text(run.folder / "metrics.json", json.dumps(metrics, indent=2, sort_keys=True, allow_nan=False) + "\n")
    write_jsonl(run.folder / "samples.jsonl", samples)
    return Comparison(run, metrics, samples)


def _this_process_goes_on(
    models: Mapping[str, Candidate], prompts: Sequence[Prompt], args: EvaluateConfig, cache: Cache, where: str
) -> bool:
    """Whether this is the only process, or the first of several when all have put their responses into the cache.

    Raises BadInput where they have no cache to share.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        check_world(1)
        return True
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    check_world(state.num_processes)
    if cache.folder is None:
        raise BadInput(f"{where}: key `cache_dir`: several processes hand their responses on in it; name a folder")
    state.wait_for_everyone()  # until every process has found the input right, the folder free among it
    for model in models.values():
        answer_share(model, prompts, args, cache, state.process_index, state.num_processes)
    state.wait_for_everyone()
    cache.look_again()
    return bool(state.is_main_process)


def _model(evidence: Evidence, model: Candidate, kl: dict[str, Any] | None) -> dict[str, Any]:
    """What metrics.json says of one model, on the main prompts."""
    main = main_numbers(evidence.prompts)
    said = [evidence.responses[model.name][number] for number in main]
    found: dict[str, Any] = {
        "kind": model.kind,
        "source": model.where,
        "judges": pairs(evidence, model.name) if model.name != evidence.base else {},
        "scores": {},
        "kl": kl,
        "length": mean_interval([len(one.text) for one in said]),
        "tokens": _mean([None if one.ids is None else len(one.ids) for one in said]),
        "finished": _share([one.ended for one in said]),
        "tags": {},
    }
    for name, judged in evidence.judged.items():
        if judged.scores is not None and (mean := _mean([judged.scores[model.name][number] for number in main])):
            found["scores"][name] = mean
            if judged.facts["kind"] == "known truth":
                found.setdefault("truth", mean)
    return found


def _samples(evidence: Evidence) -> list[dict[str, Any]]:
    """One record a prompt: what everybody said, and what every judge said of it."""
    return [
        {
            "id": prompt.id,
            "set": prompt.set,
            "tags": list(prompt.tags),
            "prompt": prompt.turns,
            "responses": {name: said[number].text for name, said in evidence.responses.items()},
            "scores": {
                name: {model: scores[number] for model, scores in judged.scores.items()}
                for name, judged in evidence.judged.items()
                if judged.scores is not None
            },
            "preferences": {
                name: {model: values[number] for model, values in judged.preferences.items() if model != evidence.base}
                for name, judged in evidence.judged.items()
            },
            "tokens": {name: _length(said[number]) for name, said in evidence.responses.items()},
        }
        for number, prompt in enumerate(evidence.prompts)
    ]


def _length(said: Said) -> int | None:
    return None if said.ids is None else len(said.ids)


def _mean(values: Sequence[float | None]) -> dict[str, Any] | None:
    known = [value for value in values if value is not None]
    return mean_interval(known) if known else None


def _share(values: Sequence[bool | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _inputs(args: EvaluateConfig) -> dict[str, dict[str, Any]]:
    """What the manifest says of data, models and judges, with hashes."""
    found = {"dataset": data_facts(args.dataset_name)}
    if args.perplexity_on is not None:
        found["perplexity"] = data_facts(args.perplexity_on)
    found |= {f"challenge set {name}": data_facts(source) for name, source in (args.challenge_sets or {}).items()}
    own = [task for task in args.harness_tasks or [] if Path(task).is_file()]
    found |= {f"harness task {task}": data_facts(task) for task in own}
    for name, model in args.models.items():
        if model.endpoint is not None:
            found[f"model {name}"] = {"name": model.model, "endpoint": model.endpoint, "sha256": {}}
        else:
            source = find_model(model.model)
            found[f"model {name}"] = model_facts(source)
            if not source.folders:
                found[f"model {name}"]["commit"] = hub_commit(source.base, source.revision)
        if model.reward_model is not None:
            found[f"reward model of {name}"] = model_facts(find_model(model.reward_model))
    for name, judge in args.judges.items():
        if judge.reward_model is not None or (judge.language_model is not None and judge.endpoint is None):
            found[f"judge {name}"] = model_facts(find_model(judge.source))
        elif judge.endpoint is not None:
            found[f"judge {name}"] = {"name": judge.source, "endpoint": judge.endpoint, "sha256": {}}
        else:
            of_file = judge.source if judge.judgements is not None else judge.source.rpartition(":")[0]
            found[f"judge {name}"] = data_facts(of_file)
    return found


def _parents(args: EvaluateConfig) -> list[str | Path]:
    """The runs that the evaluation builds on, each once: a checkpoint's is the folder around it."""
    named = [model.model for model in args.models.values() if model.endpoint is None]
    named += [model.reward_model for model in args.models.values() if model.reward_model]
    named += [judge.source for judge in args.judges.values() if judge.endpoint is None]
    named += [args.dataset_name, *((args.frontier.run,) if args.frontier else ())]
    runs = [path if is_run(path) else Path(path).parent for path in named if Path(path).exists()]
    return list(dict.fromkeys(str(path) for path in runs if is_run(path)))


def _provenance(run: Run, args: EvaluateConfig, models: Mapping[str, Candidate]) -> dict[str, str]:
    facts = {f"model {name}": model.where for name, model in models.items()}
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
