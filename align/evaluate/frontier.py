"""How far a run went, and what it won by it: its checkpoints and best of n of the base, by both rewards.

Over-optimisation shows where the reward in training still rises and the gold one, which nothing was trained to please,
falls (Gao et al. 2023, arXiv 2210.10760). What the numbers say of it is in frontier_numbers.py.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from align.data.lengths import check_prompts, context_length
from align.evaluate.config import EvaluateConfig, JudgeKeys, ModelKeys
from align.evaluate.evidence import MAIN, Prompt, Said
from align.evaluate.frontier_numbers import Reached, Reward, frontier_numbers
from align.evaluate.judges import FunctionJudge, Judge, RewardJudge
from align.evaluate.kl import BaseLogprobs
from align.evaluate.lineage import lineage_of, own_weights, trained_by_function, trained_by_weights
from align.evaluate.responses import Candidate, Rows, answers, draws
from align.models.load import ModelSource, find_model, load_config, load_tokenizer, weights_of
from align.run.cache import Cache
from align.run.checkpoint import checkpoints
from align.run.manifest import is_run
from align.run.progress import say
from preferences.errors import BadInput
from preferences.files import read_json

Scorer = RewardJudge | FunctionJudge


class Frontier(NamedTuple):
    """All that the frontier needs, found and checked; nothing is loaded."""

    run: str
    base: Candidate
    source: ModelSource  # of the base
    models: list[Candidate]  # the run's checkpoints and its final model, from its start
    steps: dict[str, int | None]  # of their labels
    reward: Scorer  # what the run was trained to please
    gold: Scorer
    gold_name: str
    best_of: int


def open_frontier(
    args: EvaluateConfig,
    models: Mapping[str, Candidate],
    judges: Mapping[str, Judge],
    prompts: Sequence[Prompt],
    where: str,
) -> Frontier | None:
    """Find the run's checkpoints, its reward and the gold judge; None where the recipe asks for no frontier.

    Raises BadInput for what is missing or doesn't fit together, and for a gold judge that the run learnt to please.
    """
    keys = args.frontier
    if keys is None:
        return None
    base = models[args.base]
    if base.source is None:
        raise BadInput(
            f"{where}: key `frontier`: the base is behind an endpoint, which tells no distance; name a model"
        )
    turns = [prompt.turns for prompt in prompts if prompt.set == MAIN]
    reward = _training_reward(args, base.max_new_tokens, turns, where)
    gold = judges[keys.gold]
    if not isinstance(gold, RewardJudge | FunctionJudge) or (isinstance(gold, FunctionJudge) and gold.compares):
        raise BadInput(
            f"{where}: key `frontier.gold`: {keys.gold} compares responses, and here each needs a score; name a reward"
            " model or a function"
        )
    lineage = lineage_of(keys.run)
    same = gold.source == reward.source
    if isinstance(gold, RewardJudge):
        weights = own_weights(gold.source)
        same = same or trained_by_weights(lineage, weights)
        same = same or (isinstance(reward, RewardJudge) and bool(weights) and own_weights(reward.source) == weights)
    else:
        same = same or trained_by_function(lineage, gold.source)
    if same:
        raise BadInput(
            f"{where}: key `frontier.gold`: {keys.run} was trained to please {gold.source}, so it can't tell whether"
            " that went too far; name a judge that was kept away from training"
        )
    found, steps = _checkpoints(keys.run, base, where)
    vocabulary = load_tokenizer(base.source).get_vocab()
    for model in found:
        assert model.source is not None
        tokenizer, context = load_tokenizer(model.source), context_length(load_config(model.source))
        if tokenizer.get_vocab() != vocabulary:
            raise BadInput(
                f"{where}: key `frontier.run`: {model.keys.model} has another vocabulary than the base {args.base}, so"
                " its distance from it can't be told; compare with the model that the run started from"
            )
        check_prompts(tokenizer, turns, base.max_new_tokens, context, f"{model.keys.model}, prompts")
    return Frontier(keys.run, base, base.source, found, steps, reward, gold, keys.gold, keys.best_of)


def frontier(
    plan: Frontier, args: EvaluateConfig, prompts: Sequence[Prompt], folder: Path, cache: Cache
) -> dict[str, Any]:
    """`frontier` of metrics.json. Responses are kept in the run's folder `frontier`, and in the cache.

    Everything samples as the base does, on the main prompts.
    """
    own = [prompt for prompt in prompts if prompt.set == MAIN]
    kept = folder / "frontier"
    kept.mkdir(exist_ok=True)
    say(f"frontier: {len(plan.models)} checkpoints of {plan.run}, and best of {plan.best_of} of the base")
    drawn = draws(plan.base, own, plan.best_of, args, kept, cache)
    said = {model.name: answers(model, own, args, kept, cache) for model in plan.models}
    base = BaseLogprobs(plan.base, args.batch_size, cache)
    kl = {name: np.array(base.log_ratios(rows)) for name, rows in said.items()}

    texts: dict[str, Rows] = {f"draw {number + 1}": rows for number, rows in enumerate(drawn)}
    first, *_ = texts
    scores: dict[Reward, dict[str, np.ndarray]] = {}
    by_both: list[tuple[Reward, Scorer]] = [("reward", plan.reward), ("gold", plan.gold)]
    for reward, judge in by_both:
        judged = judge.judge(first, own, {**texts, **said}, cache).scores or {}
        scores[reward] = {name: np.array(values, dtype=np.float64) for name, values in judged.items()}
    whole = np.all([np.isfinite(values) for by in scores.values() for values in by.values()], axis=0)
    if whole.sum() < 2:
        raise BadInput(
            f"frontier: {int(whole.sum())} of {len(own)} prompts have a score of every response by both rewards; give"
            " more prompts, or shorter ones"
        )
    reached = [
        Reached(name, step, kl[name][whole], {r: by[name][whole] for r, by in scores.items()})
        for name, step in plan.steps.items()
        if _differs(said[name], kl[name])
    ]
    matrices = {r: np.stack([by[name][whole] for name in texts], axis=1) for r, by in scores.items()}
    return {
        "run": plan.run,
        "reward_model": plan.reward.source,
        "gold": plan.gold_name,
        "best_of": plan.best_of,
        "prompts": int(whole.sum()),
        "prompts_left_out": int(len(own) - whole.sum()),
        **frontier_numbers(args.base, matrices, reached, f"the judge “{plan.gold_name}”"),
    }


def _differs(said: Sequence[Said], kl: np.ndarray) -> bool:
    """Whether this is another model than the base; the checkpoint before the first step is not."""
    return bool(np.abs(kl).max() > 1e-4 * max(len(one.ids or ()) for one in said))


def _training_reward(args: EvaluateConfig, new_tokens: int, turns: Sequence[Any], where: str) -> Scorer:
    """The reward run, or the function, that `frontier.reward_model` names; else the run's own, where it has one."""
    keys = args.frontier
    assert keys is not None
    name = keys.reward_model
    if name is None:
        recipe = _manifest(keys.run, where)["recipe"]
        own: list[str] = []
        for key in ("reward_model_path", "reward_funcs"):
            value = recipe.get(key) or []
            own += [value] if isinstance(value, str) else value
        if len(own) != 1:
            has = "no reward of its own" if not own else f"{len(own)} rewards"
            raise BadInput(
                f"{where}: key `frontier.reward_model`: missing, and {keys.run} has {has}; name the reward run to"
                " measure it by"
            )
        name = own[0]
    if ".py:" in name:
        found = FunctionJudge("reward in training", JudgeKeys(function=name))
        if found.compares:
            raise BadInput(
                f"{where}: key `frontier.reward_model`: {name} compares responses; name one that scores them"
            )
        return found
    reward = RewardJudge("reward in training", name, False, args.batch_size)
    reward.check(turns, new_tokens)
    return reward


def _checkpoints(run: str, base: Candidate, where: str) -> tuple[list[Candidate], dict[str, int | None]]:
    """The run's checkpoints in their order, and its final model unless it is one of them; with their steps."""
    manifest = _manifest(run, where)
    found: list[Candidate] = []
    steps: dict[str, int | None] = {}
    known: list[dict[str, Any]] = []
    places: list[tuple[int | None, Path]] = [*sorted(checkpoints(Path(run)))]
    if manifest.get("status") == "finished":
        places.append((None, Path(run)))
    for step, folder in places:
        source = find_model(str(folder))
        weights = weights_of(source)
        if weights in known:
            continue
        known.append(weights)
        label = "the final model" if step is None else f"step {step}"
        steps[label] = step
        keys = ModelKeys(model=str(folder))
        found.append(Candidate(label, keys, "local", source, base.temperature, base.max_new_tokens, base.seed))
    if not found:
        raise BadInput(
            f"{where}: key `frontier.run`: {run} has no checkpoint and is not finished; go on with it by --resume"
        )
    return found, steps


def _manifest(run: str, where: str) -> dict[str, Any]:
    if not is_run(run):
        raise BadInput(f"{where}: key `frontier.run`: {run} is no run folder; name one that `align ppo`, say, has made")
    manifest = read_json(Path(run) / "manifest.json")
    if manifest["verb"] in ("reward", "evaluate", "sample"):
        raise BadInput(
            f"{where}: key `frontier.run`: {run} is a run of `align {manifest['verb']}`; name one that trained a policy"
        )
    return manifest
