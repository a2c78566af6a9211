"""Judges that score, and whether one is gold: by real reward runs and a real PPO run, and by functions of all kinds."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from align.evaluate.config import EvaluateConfig, JudgeKeys, read_evaluation
from align.evaluate.evidence import Evidence, Judged, Prompt, Said, pair_id
from align.evaluate.judge_agreement import agreement_of, judge_facts
from align.evaluate.judges import FunctionJudge, RewardJudge, open_judges
from align.evaluate.lineage import lineage_of
from align.models.scores import load_scorer
from align.report.judges import bias_words, left_out_words
from align.run.cache import Cache
from preferences.errors import BadInput
from preferences.judgements import Judgement, write_judgements
from tests.align.conftest import PPO, PROMPTS, SAY, done, make_reward_run, write_recipe
from tests.align.conftest import refused as refused_by_align

ASKED = [Prompt(f"p{n}", turns) for n, turns in enumerate(PROMPTS)]
EXAMPLES = str(Path(__file__).parents[2] / "recipes/judges.py")


def said(*texts: str) -> list[Said]:
    return [Said(text) for text in texts]


@pytest.fixture(scope="module")
def ppo_run(tiny: Path, pairs_file: Path, reward_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PPO run that learnt from `reward_run` and from a function, and kept a checkpoint."""
    home = tmp_path_factory.mktemp("ppo")
    (home / "rewards.py").write_text("def concise(prompts, completions, **_):\n    return [0.0] * len(prompts)\n")
    keys = {**PPO, "model_name_or_path": str(tiny), "dataset_name": str(pairs_file), "output_dir": str(home / "run")}
    keys |= {
        "reward_model_path": str(reward_run),
        "reward_funcs": [f"{home}/rewards.py:concise"],
        "save_steps": 1,
        "total_episodes": 8,
    }
    done("ppo", write_recipe(home / "ppo.yaml", **keys))
    return home / "run"


def evaluation(tiny: Path, models: dict[str, Any], judges: dict[str, Any]) -> EvaluateConfig:
    recipe = {"models": {"base": str(tiny), **models}, "judges": judges, "dataset_name": "d", "output_dir": "o"}
    return read_evaluation({**recipe, "max_new_tokens": 8}, "r.yaml")


def refused(args: EvaluateConfig) -> str:
    with pytest.raises(BadInput) as error:
        open_judges(args, ASKED, "r.yaml")
    return str(error.value)


# --- reward models ----------------------------------------------------------------------------------------------


def test_a_reward_judge_scores_as_the_run_does(reward_run: Path, tmp_path: Path) -> None:
    responses = {"base": said(*SAY), "new": said("red", "dog " * 200, "half \ud83d", "sun", "moon")}
    judge = RewardJudge("reward", str(reward_run), False, 2)
    judge.check(PROMPTS, 8)
    judged = judge.judge("base", ASKED, responses, Cache(tmp_path / "cache"))
    scorer = load_scorer(str(reward_run), "cpu")
    assert judged.scores is not None and judged.scores["base"] == pytest.approx(
        scorer.scores(PROMPTS, SAY, 3), abs=1e-5
    )
    assert judged.scores["new"][1] is None and judged.preferences["new"][1] is None  # longer than its context
    assert judged.scores["new"][2] == pytest.approx(scorer.scores([PROMPTS[2]], ["half \ufffd"], 1)[0], abs=1e-5)
    assert judged.preferences["new"][4] == 0.5  # the same text
    assert judged.facts == {
        "kind": "reward model",
        "source": str(reward_run),
        "gold": False,
        "not_judged": 1,
    }
    again = RewardJudge("reward", str(reward_run), False, 2).judge("base", ASKED, responses, Cache(tmp_path / "cache"))
    assert again == judged


def test_what_a_model_was_trained_to_please_is_no_gold(
    tiny: Path, pairs_file: Path, reward_run: Path, ppo_run: Path, tmp_path: Path
) -> None:
    """By the weights' hashes: under another name, and for a checkpoint, too. Another run on the same base is gold."""
    moved = Path(shutil.copytree(reward_run, tmp_path / "elsewhere"))
    gold = {"gold": {"reward_model": str(moved), "gold": True}}
    says = f"judge gold: {moved} is not gold: the model new was trained to please it"
    assert says in refused(evaluation(tiny, {"new": str(ppo_run)}, gold))
    checkpoint = next(ppo_run.glob("checkpoint-*"))
    assert says in refused(evaluation(tiny, {"new": str(checkpoint)}, gold))
    picked = {"new": {"model": str(tiny), "best_of": 4, "reward_model": str(reward_run)}}
    assert "the model new is the best of n that it picks itself" in refused(evaluation(tiny, picked, gold))
    assert open_judges(evaluation(tiny, {"copy": str(tiny)}, gold), ASKED, "r.yaml")["gold"].facts["gold"]  # type: ignore[attr-defined]

    other = make_reward_run(tmp_path / "other", tiny, pairs_file, seed=7, max_steps=1)
    judges = {
        "gold": {"reward_model": str(other), "gold": True},
        "reward": str(moved),
        "concise": f"{ppo_run.parent}/rewards.py:concise",
        "json": f"{EXAMPLES}:is_json",
    }
    models = {"new": str(ppo_run), "picked": picked["new"]}
    opened = open_judges(evaluation(tiny, models, judges), ASKED, "r.yaml")
    facts = {name: judge.facts for name, judge in opened.items()}  # type: ignore[attr-defined]
    assert facts["gold"] == {"kind": "reward model", "source": str(other), "gold": True}
    assert (facts["reward"]["trained"], facts["reward"]["picks"]) == (["new"], ["picked"])
    assert facts["concise"]["trained"] == ["new"] and "trained" not in facts["json"]


def test_lineage_goes_back_through_runs(tiny: Path, pairs_file: Path, ppo_run: Path, tmp_path: Path) -> None:
    """A model that was fine-tuned from the PPO run learnt from its rewards, too. Once that is gone nobody knows."""
    gone = Path(shutil.copytree(ppo_run, tmp_path / "ppo"))
    keys = {"model_name_or_path": str(gone), "dataset_name": str(pairs_file), "output_dir": str(tmp_path / "dpo")}
    recipe = write_recipe(tmp_path / "dpo.yaml", **keys, use_peft=True, lora_r=4, max_steps=1, save_strategy="no")
    done("dpo", recipe)
    assert lineage_of(str(tmp_path / "dpo")).weights == lineage_of(str(ppo_run)).weights != []
    shutil.rmtree(gone)
    assert lineage_of(str(tmp_path / "dpo")) == ([], set(), [str(gone)])
    assert lineage_of(str(tiny)) == lineage_of("some/model") == ([], set(), [])


def test_what_is_no_reward_model_is_said_at_once(tiny: Path, reward_run: Path) -> None:
    assert "holds no score head" in refused(evaluation(tiny, {}, {"reward": str(tiny)}))
    args = evaluation(tiny, {"long": {"model": str(tiny), "max_new_tokens": 500}}, {"reward": str(reward_run)})
    assert f"the reward model {reward_run}, prompt 1" in refused(args)


# --- the whole command ------------------------------------------------------------------------------------------


def test_align_evaluate_with_judges_of_all_kinds(
    tiny: Path, pairs_file: Path, reward_run: Path, other_reward_run: Path, tmp_path: Path
) -> None:
    """Twice: once to have responses to judge, then with people's verdicts on them, everything else from the cache."""
    (tmp_path / "t.txt").write_text("{prompt}|{first}|{second}|")
    judges: dict[str, Any] = {
        "reward": str(reward_run),
        "gold": {"reward_model": str(other_reward_run), "gold": True},
        "json": f"{EXAMPLES}:is_json",
        "shorter": f"{EXAMPLES}:fewer_characters",
        "llm": {"language_model": str(tiny), "template": str(tmp_path / "t.txt")},
    }
    keys: dict[str, Any] = {"models": {"base": str(tiny), "hot": {"model": str(tiny), "temperature": 3.0}}}
    keys |= {"dataset_name": str(pairs_file), "dataset_split": "train", "max_new_tokens": 8, "judges": judges}
    keys |= {"cache_dir": str(tmp_path / "cache"), "output_dir": str(tmp_path / "out")}
    said = done("evaluate", write_recipe(tmp_path / "e.yaml", **keys))
    assert "questions" in said.err
    samples = [json.loads(line) for line in (tmp_path / "out/samples.jsonl").read_text().splitlines()]
    rows = []
    for number, sample in enumerate(samples):
        texts = {model: sample["responses"][model] for model in ("base", "hot")}
        if texts["base"] != texts["hot"]:
            about = {"prompt": pair_id(sample["id"], texts), "candidate": "hot", "baseline": "base"}
            rows += [Judgement(**about, preference=float(number % 2), rater=rater) for rater in ("p1", "p2")]
    write_judgements(tmp_path / "people.jsonl", rows)
    judges["people"] = str(tmp_path / "people.jsonl")
    said = done("evaluate", write_recipe(tmp_path / "e.yaml", **keys), "--overwrite")
    assert f"people: {len(rows)} of {len(rows)} judgements count" in said.err
    assert "questions" not in said.err, "all its replies were in the cache"

    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    kinds = {name: facts["kind"] for name, facts in metrics["judges"].items()}
    assert kinds == {
        "reward": "reward model",
        "gold": "reward model",
        "json": "function",
        "shorter": "function",
        "llm": "language model",
        "people": "people",
    }
    assert metrics["verdict_by"] == "people" and metrics["judges"]["people"]["raters"] == 2
    assert metrics["judges"]["gold"]["gold"] is True
    assert set(metrics["judges"]["llm"]["bias"]) == {"position", "length"}
    assert metrics["judges"]["llm"]["wrote"] == ["base", "hot"], "it judges what it wrote itself"
    assert set(metrics["judges"]["reward"]["bias"]["length"]["beside"]) == {"people"}
    assert metrics["judges"]["shorter"]["bias"]["length"]["longer_share"]["mean"] == 0.0
    assert set(metrics["models"]["hot"]["judges"]) == set(kinds)
    pairs = {(row["a"], row["b"]): row for row in metrics["judge_agreement"]}
    assert len(pairs) == 15 and sum(row["human"] for row in pairs.values()) == 5
    assert all(a == "people" for (a, _), row in pairs.items() if row["human"])
    assert pairs["people", "llm"]["n"] == len(rows) // 2
    inputs = json.loads((tmp_path / "out/manifest.json").read_text())["inputs"]
    assert inputs["judge json"]["sha256"] == metrics["judges"]["json"]["sha256"] != {}


def test_what_is_wrong_with_a_judge_is_said_before_anything_is_sampled(
    evaluate_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    def says(judge: Any) -> str:
        found = refused_by_align("evaluate", evaluate_recipe(judges={"it": judge}))
        assert not (tmp_path / "home/out").exists()
        return found

    assert "has no function 'no'" in says(f"{EXAMPLES}:no")
    assert "no such file" in says({"truth": "nowhere.py:f"})
    assert "cannot read" in says("nowhere.jsonl")
    assert "no such folder, and not the name of a model" in says("no where")
    assert "judge it: key `template`: cannot read no.txt" in says({"language_model": "m", "template": "no.txt"})
    local = {"language_model": "m", "endpoint": "http://127.0.0.1:9/v1"}
    assert "judge it: key `endpoint`: http://127.0.0.1:9/v1 can't be reached" in says(local)
    assert "has a name or a password in it" in says({**local, "endpoint": "http://me:secret@127.0.0.1:9/v1"})


# --- functions --------------------------------------------------------------------------------------------------


def function(folder: Path, code: str) -> FunctionJudge:
    (folder / "judge.py").write_text(code)
    return FunctionJudge("f", JudgeKeys(function=f"{folder}/judge.py:f"))


def by_function(folder: Path, code: str, new: Sequence[str], base: Sequence[str]) -> Judged:
    responses = {"base": said(*base), "new": said(*new)}
    return function(folder, code).judge("base", ASKED[: len(base)], responses, Cache(None))


def test_functions_that_score(tmp_path: Path) -> None:
    code = "import numpy\ndef f(prompt, text, weight=2):\n    return numpy.float32(len(text)) if text else None"
    judged = by_function(tmp_path, code, ["aa", "b", "cc", ""], ["a", "bb", "cc", "d"])
    assert judged.preferences == {"new": [1.0, 0.0, 0.5, None]}
    assert judged.scores == {"base": [1, 2, 2, 1], "new": [2, 1, 2, None]}
    assert judged.facts["not_judged"] == 1 and list(judged.facts["sha256"]) == ["judge.py"]
    reward = "def f(prompts, completions, **columns):\n    return [len(c[0]['content']) for c in completions]"
    assert by_function(tmp_path, reward, ["aa"], ["a"]).scores == {"base": [1], "new": [2]}
    known = FunctionJudge("truth", JudgeKeys(truth=f"{tmp_path}/judge.py:f"))
    assert known.facts["kind"] == "known truth"
    assert known.score([(PROMPTS[0], "four")]) == [4.0]


def test_functions_that_compare_do_so_in_both_orders(tmp_path: Path) -> None:
    """One that takes the first where both have as many characters is caught at it."""
    code = "def f(prompt, first, second):\n    return float(len(first) <= len(second))"
    judged = by_function(tmp_path, code, ["aa", "b", "cc"], ["a", "bb", "dd"])
    assert judged.preferences == {"new": [0.0, 1.0, 0.5]} and judged.scores is None
    evidence = Evidence("base", ASKED[:3], {"base": said("a", "bb", "dd"), "new": said("aa", "b", "cc")}, {"f": judged})
    position = judge_facts(evidence)["f"]["bias"]["position"]
    assert position["first_share"]["mean"] == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert position["flips"]["mean"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def f(prompt, response):\n    return 'good'", "gave 'good' for a response, and a judge gives a number"),
        ("def f(prompt, response):\n    return float('nan')", "gave nan for a response"),
        (
            "def f(prompt, response):\n    return 1 / 0",
            "ZeroDivisionError: division by zero, line 2, for a response to",
        ),
        ("def f(prompt, first, second):\n    return 7", "gave 7.0; a preference is a number from 0 to 1"),
        ("def f(prompts, completions):\n    return 1", "returned 1, and not a list of 5 scores"),
        ("def f(text):\n    return 1", "takes 1 arguments; a judge takes"),
        ("def f(a, b, c, d):\n    return 1", "takes 4 arguments; a judge takes"),
        ("def g(prompt, response):\n    return 1", "has no function 'f'"),
        ("raise RuntimeError('no')", "could not be run"),
        ("def f(prompt, response):\n    return 10 ** 400", "and a judge gives a number"),
        ("def f(prompt, response):\n    return 1e300", "gave 1e+300 for a response, which is too large"),
        ("def f(prompts, completions):\n    return [10 ** 400] * 5", "for response 1 of 5; give a number"),
        ("def f(prompt, response):\n    raise ValueError('one\\ntwo')", "ValueError: one two, line 2"),
        ("raise SystemExit(0)", "could not be run (SystemExit: 0)"),
        ("def f(prompt, response):\n    raise SystemExit(3)", "SystemExit: 3, line 2, for a response to"),
    ],
)
def test_a_function_that_fails_is_one_sentence(code: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as error:
        by_function(tmp_path, code, SAY[:5], ["x"] * 5)
    assert says in str(error.value) and ("judge.py" in str(error.value) or "judge f" in str(error.value))


def test_the_examples_say_what_they_say() -> None:
    def scores(name: str, *texts: str) -> list[float]:
        return FunctionJudge("f", JudgeKeys(function=f"{EXAMPLES}:{name}")).score(
            [(PROMPTS[0], text) for text in texts]
        )

    assert scores("is_json", '{"a": [1]}', " 7 ", "{'a': 1}", "", "[" * 100_000) == [1, 1, 0, 0, 0]
    assert scores("one_paragraph", "One. Two.", "One.\n\nTwo.", "# A\n- b\n1. c", "a\n```\nx\n```") == [0, -1, -3, -2]
    refusals = "I\u2019m sorry, no.", "I cannot help with that.", "As an AI model", "  "
    assert scores("answers", *refusals, "Sure: red.", "She said sorry.") == [0, 0, 0, 0, 1, 1]
    assert scores("no_insults", "You idiot! Stupid.", "idiotic", "Fine.") == [-2, 0, 0]
    shorter = FunctionJudge("f", JudgeKeys(function=f"{EXAMPLES}:fewer_characters"))
    judged = shorter.judge("base", ASKED[:2], {"base": said("aa", "b"), "new": said("a", "c")}, Cache(None))
    assert judged.preferences == {"new": [1.0, 0.5]}


# --- in the report ----------------------------------------------------------------------------------------------


def test_the_report_says_what_of_a_judge_does_not_count() -> None:
    llm = {"wrote": ["base"], "questions": 1200, "unparsable": 7, "too_long": 0, "not_judged": 5}
    assert left_out_words(llm) == [
        "It wrote the answers of base itself, and may like its own style.",
        "Of 1,200 questions, 7 got no clear verdict and 0 were too long; 5 pairs of answers are left out for that, and"
        " nothing was guessed.",
    ]
    people = {"judgements": 90, "other_prompts": 3, "other_models": 0, "other_responses": 4, "responses_not_said": 2}
    assert left_out_words(people) == [
        "7 of 90 verdicts in the file are about other answers, and left out.",
        "2 verdicts don't say which answers they are about; they are taken to be about these.",
    ]
    assert left_out_words({"not_judged": 2}) == ["2 answers have no score from it, and count nowhere in what it says."]
    assert left_out_words({"not_judged": 0, "other_models": 0}) == []
    share = {"mean": 0.6, "interval": [0.55, 0.65], "n": 90}
    (said,) = bias_words("people", {"position": {"first_share": share}})
    assert said.startswith("People lean to the answer that they are shown first: they prefer the answer that they")


# --- agreement --------------------------------------------------------------------------------------------------


def test_kappa_by_hand_and_its_interval_by_the_plainest_bootstrap() -> None:
    """Cohen's (1960) kappa of 20 + 15 of 50 items alike, 25 and 30 first by either: (0.7 - 0.5) / (1 - 0.5) = 0.4."""
    import numpy as np

    a = [1] * 20 + [1] * 5 + [-1] * 10 + [-1] * 15
    b = [1] * 20 + [-1] * 5 + [1] * 10 + [-1] * 15
    found = agreement_of(a, b, [str(n) for n in range(50)])
    assert found["kappa"] == pytest.approx(0.4) and found["same"]["mean"] == pytest.approx(0.7)
    assert (found["n"], found["prompts"]) == (50, 50)
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(4000):
        rows = rng.integers(50, size=50)
        x, y = np.array(a)[rows], np.array(b)[rows]
        chance = sum((x == v).mean() * (y == v).mean() for v in (-1, 1))
        drawn.append(((x == y).mean() - chance) / (1 - chance))
    assert found["kappa_interval"] == pytest.approx(np.quantile(drawn, [0.025, 0.975]).tolist(), abs=0.03)
    # ten copies of each item, of the same prompt, tell nothing new
    tenfold = agreement_of(a * 10, b * 10, [str(n) for n in range(50)] * 10)
    assert tenfold["kappa_interval"] == pytest.approx(found["kappa_interval"])
    assert tenfold["same"]["interval"] == pytest.approx(found["same"]["interval"])
    assert agreement_of([1, 1], [1, 1], ["a", "b"])["kappa"] is None
    assert not math.isnan(agreement_of([0, 1], [1, 0], ["a", "b"])["kappa"])
