"""How models answer: batch by batch, from the cache, the best of n, and behind an endpoint."""

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from align.evaluate.best_of import Picker
from align.evaluate.evidence import Prompt, Said
from align.evaluate.responses import _kept, _line
from align.models.load import find_model, load_causal_lm, load_tokenizer, weights_of
from align.models.rewards import load_as_trained
from align.models.sampling import sample, seed_of
from align.run.cache import Cache
from tests.align.conftest import TRAIN, done, refused, write_recipe
from tests.align.test_endpoint import serving
from tests.align.test_serve import served

KEY = "a-key-of-the-test"


def recipe_of(path: Path, pairs_file: Path, reward_run: Path, models: dict[str, Any], **keys: Any) -> Path:
    right = {"dataset_name": str(pairs_file), "judges": {"reward": str(reward_run)}, "max_new_tokens": 8}
    right |= {"batch_size": 4, "num_prompts": 10, "cache_dir": None, "output_dir": str(path.parent / "run")}
    return write_recipe(path, **{**right, "models": models, **keys})


def rows_of(run: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / f"responses-{name}.jsonl").read_text().splitlines()]


def metrics_of(run: Path) -> dict[str, Any]:
    """What a metrics.json says, but for times, and for the commit, since others may commit while a test runs."""
    found: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    del found["seconds"], found["provenance"]["started"], found["provenance"]["commit"]
    return found


def test_each_prompt_has_draws_of_its_own_whatever_stands_beside_it(
    tiny: Path, pairs_file: Path, reward_run: Path, tmp_path: Path
) -> None:
    """By the plainest code: one prompt at a time. Fewer prompts are answered as they were among more."""
    done("evaluate", recipe_of(tmp_path / "r.yaml", pairs_file, reward_run, {"base": str(tiny)}, seed=5))
    rows = rows_of(tmp_path / "run", "base")
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    model, tokenizer = load_causal_lm(find_model(str(tiny))).eval(), load_tokenizer(find_model(str(tiny)))
    for row, shown in zip(rows, samples, strict=True):
        seeds = [seed_of(5, row["id"])]
        said = sample(model, tokenizer, [shown["prompt"]], seeds, max_new_tokens=8, temperature=0.7)
        assert (row["text"], row["ids"]) == (said.texts[0].strip(), said.responses[0])
        assert shown["id"] == row["id"] and shown["responses"]["base"] == row["text"]
    assert len({row["text"] for row in rows}) > 3
    words = ["--num_prompts", 3, "--output_dir", tmp_path / "fewer"]
    done("evaluate", recipe_of(tmp_path / "r.yaml", pairs_file, reward_run, {"base": str(tiny)}, seed=5), *words)
    assert [row["text"] for row in rows_of(tmp_path / "fewer", "base")] == [row["text"] for row in rows[:3]]


def test_killed_and_resumed(tiny: Path, pairs_file: Path, reward_run: Path, tmp_path: Path) -> None:
    """SIGKILL as soon as some batches are there; then a torn line. It ends as the unbroken run does, to the byte."""
    models = {"base": str(tiny), "again": {"model": str(tiny), "seed": 1}}
    models["best of 2"] = {"model": str(tiny), "best_of": 2, "reward_model": str(reward_run)}
    recipe = recipe_of(
        tmp_path / "r.yaml", pairs_file, reward_run, models, batch_size=1, num_prompts=None, max_new_tokens=48
    )
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    done("evaluate", recipe, "--output_dir", unbroken, "--cache_dir", tmp_path / "cache-1")
    words = [str(recipe), "--output_dir", str(broken), "--cache_dir", str(tmp_path / "cache-2")]
    kept = broken / "responses-again.jsonl"
    with subprocess.Popen(
        [str(Path(sys.executable).parent / "align"), "evaluate", *words], stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 200
        while not (kept.is_file() and kept.stat().st_size) and time.monotonic() < deadline:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    whole = (unbroken / "responses-again.jsonl").read_bytes()
    there = kept.read_bytes()
    assert there and whole.startswith(there)
    kept.write_bytes(there + whole[len(there) : len(there) + 20])
    said = done("evaluate", *words, "--resume")
    lines = there.count(b"\n")
    assert f"again: {lines} of {len(whole.splitlines())} prompts are there already" in said.err
    for file in ("samples.jsonl", *(f"responses-{name}.jsonl" for name in models)):
        assert (unbroken / file).read_bytes() == (broken / file).read_bytes(), file
    assert metrics_of(unbroken) == metrics_of(broken)
    assert json.loads((broken / "manifest.json").read_text())["status"] == "finished"


def test_half_a_batch_is_made_again_as_a_batch(tiny: Path, pairs_file: Path, reward_run: Path, tmp_path: Path) -> None:
    """Rows depend on their neighbours in the last bits, so a batch is never filled up."""
    recipe = recipe_of(tmp_path / "r.yaml", pairs_file, reward_run, {"base": str(tiny)}, cache_dir=str(tmp_path / "c"))
    done("evaluate", recipe)
    run, whole = tmp_path / "run", (tmp_path / "run" / "responses-base.jsonl").read_bytes()
    manifest = json.loads((run / "manifest.json").read_text())
    before = (run / "samples.jsonl").read_bytes()
    for lines in (1, 6, 10):
        (run / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
        (run / "responses-base.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:lines]))
        said = done("evaluate", recipe, "--resume")
        there = 10 if lines == 10 else lines - lines % 4
        assert (f"base: {there} of 10 prompts are there already" in said.err) == (there > 0)
        assert (run / "responses-base.jsonl").read_bytes() == whole
        assert (run / "samples.jsonl").read_bytes() == before


def test_what_was_said_once_comes_from_the_cache(
    tiny: Path, pairs_file: Path, reward_run: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    models = {"base": str(tiny), "other seed": {"model": str(tiny), "seed": 1}}
    recipe = recipe_of(tmp_path / "r.yaml", pairs_file, reward_run, models, cache_dir=str(cache))
    first = done("evaluate", recipe)
    assert "base: 10 of 10 prompts\n" in first.err
    shutil.copytree(tiny, tmp_path / "elsewhere")
    models = {"base": str(tmp_path / "elsewhere"), "other seed": {"model": str(tiny), "seed": 1}}
    again = recipe_of(tmp_path / "s.yaml", pairs_file, reward_run, models, cache_dir=str(cache))
    said = done("evaluate", again, "--output_dir", tmp_path / "again")
    assert "base: 10 of 10 prompts (10 from the cache)" in said.err, "the same weights in another place"
    assert "other seed: 10 of 10 prompts (10 from the cache)" in said.err
    for file in ("samples.jsonl", "responses-base.jsonl"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "run" / file).read_bytes()
    for words in (["--temperature", "0.9"], ["--max_new_tokens", "7"], ["--seed", "6"]):
        said = done("evaluate", recipe, "--output_dir", tmp_path / words[0], *words)
        assert "base: 10 of 10 prompts\n" in said.err, words
    said = done("evaluate", recipe, "--output_dir", tmp_path / "more", "--num_prompts", 11)
    assert "base: 11 of 11 prompts (8 from the cache)" in said.err, "whole batches"


def test_weights_are_known_by_content(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("Another name, and the same model.")
    own, copy = weights_of(find_model(str(tiny))), weights_of(find_model(str(tmp_path / "copy")))
    assert own == copy
    settings = json.loads((tiny / "generation_config.json").read_text())
    (tmp_path / "copy" / "generation_config.json").write_text(json.dumps({**settings, "eos_token_id": [1, 2]}))
    assert weights_of(find_model(str(tmp_path / "copy"))) != own


def test_equal_responses_tie_whatever_they_were_scored_beside(reward_run: Path) -> None:
    """In other batches a score differs in its last bits; that must make nobody the winner."""
    from align.evaluate.judges import RewardJudge

    prompts = [[{"role": "user", "content": f"Say {word}."}] for word in ("red", "cat", "sun")]
    judge, cache = RewardJudge("reward", str(reward_run), False, 3), Cache(None)
    first = judge.score([(prompt, "red") for prompt in prompts], cache)
    beside = [(prompts[0], "a much longer response, beside which it is padded " * 2), (prompts[1], "red")]
    again = judge.score([*beside, (prompts[2], "red")], cache)
    assert again[1:] == first[1:]


def test_a_hub_model_is_known_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the hub's cache as huggingface_hub lays it out; nothing is fetched."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = []
    for commit in ("a" * 40, "b" * 40):
        snapshot = tmp_path / "models--org--model" / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text("{}")
        (tmp_path / "models--org--model" / "refs").mkdir(exist_ok=True)
        (tmp_path / "models--org--model" / "refs" / "main").write_text(commit)
        found.append(weights_of(find_model("org/model")))
        assert found[-1]["parts"] == [{"hub": "org/model", "commit": commit}]
    assert found[0] != found[1]


def test_checkpoints_are_models_whether_their_run_is_finished_or_not(
    tiny: Path, pairs_file: Path, reward_run: Path, tmp_path: Path
) -> None:
    keys = {**TRAIN, "model_name_or_path": str(tiny), "dataset_name": str(pairs_file), "save_strategy": "steps"}
    words = ["--output_dir", tmp_path / "dpo", "--max_steps", 2, "--save_steps", 1, "--learning_rate", 1e-2]
    done("dpo", write_recipe(tmp_path / "dpo.yaml", **keys), *words)
    manifest = json.loads((tmp_path / "dpo" / "manifest.json").read_text())
    (tmp_path / "dpo" / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    models = {"base": str(tiny)} | {f"step {n}": str(tmp_path / "dpo" / f"checkpoint-{n}") for n in (1, 2)}
    recipe = recipe_of(tmp_path / "r.yaml", pairs_file, reward_run, models)
    done("evaluate", recipe)
    metrics = metrics_of(tmp_path / "run")
    assert 0 < abs(metrics["models"]["step 1"]["kl"]["mean"]) < abs(metrics["models"]["step 2"]["kl"]["mean"])
    kinds = [str(tiny), *(models[name] for name in ("step 1", "step 2"))]
    assert len({json.dumps(weights_of(find_model(kind))["parts"]) for kind in kinds}) == 3
    parents = json.loads((tmp_path / "run" / "manifest.json").read_text())["parents"]
    assert str(tmp_path / "dpo") in [parent["folder"] for parent in parents]
    recipe = recipe_of(tmp_path / "s.yaml", pairs_file, reward_run, {**models, "dpo": str(tmp_path / "dpo")})
    assert "not finished (running); go on with it by --resume, or name one of its checkpoints" in refused(
        "evaluate", recipe, "--output_dir", tmp_path / "other"
    )


def test_best_of_n_is_what_the_reward_model_likes_best(
    tiny: Path, pairs_file: Path, reward_run: Path, tmp_path: Path
) -> None:
    n = 3
    rival = {"model": str(tiny), "best_of": n, "reward_model": str(reward_run)}
    done("evaluate", recipe_of(tmp_path / "r.yaml", pairs_file, reward_run, {"base": str(tiny), "best of 3": rival}))
    model, tokenizer = load_causal_lm(find_model(str(tiny))).eval(), load_tokenizer(find_model(str(tiny)))
    reward = load_as_trained(str(reward_run))
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    moved = 0
    for shown in samples:
        seeds = [seed_of(42, shown["id"], "best of", number) for number in range(n)]
        said = sample(model, tokenizer, [shown["prompt"]] * n, seeds, max_new_tokens=8, temperature=0.7)
        texts = [text.strip() for text in said.texts]
        scores = reward.scores([shown["prompt"]] * n, texts, 1)
        assert shown["responses"]["best of 3"] == texts[scores.index(max(scores))]
        assert shown["scores"]["reward"]["best of 3"] == pytest.approx(max(scores), abs=1e-4)
        moved += scores.index(max(scores)) != 0
    assert moved > 0
    facts = metrics_of(tmp_path / "run")["models"]["best of 3"]
    assert facts["kind"] == "best of n"
    assert facts["kl"] == pytest.approx(
        {"mean": math.log(3) - 2 / 3, "bound": True, "interval": None, "n": 10, "standard_error": None}
    )
    assert facts["judges"]["reward"]["win_rate"] > 0.5


def test_the_first_of_equal_draws_is_picked(reward_run: Path) -> None:
    pick = Picker(str(reward_run), Cache(None), 4)
    prompts = [[{"role": "user", "content": "Say red."}]] * 2
    assert pick(prompts, [["red", "a b c d e f g"], ["red", "cat"], ["red", "cat"]]) in ([0, 1], [0, 0])
    scores = pick.scores(prompts, ["cat", "a b c d e f g"])
    assert pick(prompts, [["red", "a b c d e f g"], ["red", "cat"], ["red", "cat"]])[1] == int(scores[0] > scores[1])


def test_a_model_behind_an_endpoint_says_what_it_says_here(
    tiny: Path, pairs_file: Path, reward_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`align serve` in a process of its own draws from the same seeds. Its key is nowhere but in the requests."""
    monkeypatch.setenv("THE_KEY", KEY)
    cache = tmp_path / "cache"
    with served(tiny, "--api-key-env", "THE_KEY", THE_KEY=KEY) as url:
        production = {"model": str(tiny), "endpoint": url, "api_key_env": "THE_KEY"}
        models = {"base": str(tiny), "production": production}
        recipe = recipe_of(tmp_path / "r.yaml", pairs_file, reward_run, models, cache_dir=str(cache))
        said = done("evaluate", recipe)
        monkeypatch.setenv("THE_KEY", "wrong")
        wrong = refused("evaluate", recipe, "--output_dir", tmp_path / "wrong")
        assert "refuses the key (401" in wrong and "look at THE_KEY" in wrong
        monkeypatch.setenv("THE_KEY", KEY)
        lost = {"base": str(tiny), "production": {**production, "model": "lost"}}
        recipe_lost = recipe_of(tmp_path / "s.yaml", pairs_file, reward_run, lost)
        assert f"serves no 'lost', only {tiny}" in refused("evaluate", recipe_lost, "--output_dir", tmp_path / "lost")
        again = done("evaluate", recipe, "--output_dir", tmp_path / "again")
        assert "production: 10 of 10 prompts (10 from the cache)" in again.err
    base, there = rows_of(tmp_path / "run", "base"), rows_of(tmp_path / "run", "production")
    assert [row["text"] for row in there] == [row["text"] for row in base]
    assert [row["ended"] for row in there] == [row["ended"] for row in base]
    facts = metrics_of(tmp_path / "run")["models"]["production"]
    assert facts["kind"] == "endpoint" and facts["source"] == f"{tiny} at {url}"
    assert facts["kl"] is None and facts["tokens"] is None and facts["judges"]["reward"]["win_rate"] == 0.5
    assert facts["finished"] == metrics_of(tmp_path / "run")["models"]["base"]["finished"]
    files = [path for folder in (tmp_path / "run", cache) for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not any(KEY.encode() in path.read_bytes() for path in files) and KEY not in said.out + said.err
    assert not (tmp_path / "wrong").exists()


def test_a_prompt_that_the_server_will_not_take_is_answered_by_nothing(
    tiny: Path, pairs_file: Path, reward_run: Path, tmp_path: Path
) -> None:
    """A provider's filter refuses one prompt; the others count. One that refuses all is a mistake in the recipe."""
    listed = (200, {"data": [{"id": "m"}]})
    filtered = (400, {"error": {"message": "content_filter"}})
    answer = (200, {"choices": [{"message": {"content": "red"}, "finish_reason": "stop"}]})
    with serving(listed, answer, filtered, answer) as server:
        models = {"base": str(tiny), "production": {"model": "m", "endpoint": server.url}}
        said = done("evaluate", recipe_of(tmp_path / "r.yaml", pairs_file, reward_run, models, num_prompts=3))
    assert "production: 1 prompts count as answered by nothing; " in said.err and "(400: content_filter)" in said.err
    assert sorted(row["text"] for row in rows_of(tmp_path / "run", "production")) == ["", "red", "red"]
    with serving(listed, filtered) as server:
        models = {"base": str(tiny), "production": {"model": "m", "endpoint": server.url}}
        recipe = recipe_of(tmp_path / "r.yaml", pairs_file, reward_run, models, num_prompts=3)
        assert "(400: content_filter)" in refused("evaluate", recipe, "--output_dir", tmp_path / "all")


def test_other_sampling_is_said(tiny: Path, pairs_file: Path, reward_run: Path, tmp_path: Path) -> None:
    models = {"base": str(tiny), "same": {"model": str(tiny), "temperature": 0.7}}
    models["hot"] = {"model": str(tiny), "temperature": 1.5, "max_new_tokens": 4}
    done("evaluate", recipe_of(tmp_path / "r.yaml", pairs_file, reward_run, models, num_prompts=3))
    metrics = metrics_of(tmp_path / "run")
    assert metrics["sampling"] == {
        "settings": {"temperature": 0.7, "max_new_tokens": 8, "seed": 42},
        "differs": {"hot": {"temperature": 1.5, "max_new_tokens": 4}},
    }
    assert max(len(row["ids"]) for row in rows_of(tmp_path / "run", "hot")) <= 4
    assert metrics["models"]["hot"]["kl"]["mean"] > metrics["models"]["same"]["kl"]["mean"] == 0


@pytest.mark.parametrize(
    "damage", ["{", "3", '{"id": "2"}', '{"id": "2", "text": 3}', '{"id": "7", "text": "x"}', "[" * 99999]
)
def test_a_damaged_line_and_what_follows_is_made_again(tmp_path: Path, damage: str) -> None:
    prompts = [Prompt(str(number), [{"role": "user", "content": "x"}]) for number in range(6)]
    lines = [_line(prompt, Said(f"red {prompt.id}")) for prompt in prompts]
    kept = tmp_path / "responses.jsonl"
    kept.write_bytes(b"".join([*lines[:2], damage.encode() + b"\n", *lines[3:]]))
    assert _kept(kept, prompts, 2) == [Said("red 0"), Said("red 1")]
    assert kept.read_bytes() == b"".join(lines[:2])
    kept.write_bytes(b"".join(lines))
    assert len(_kept(kept, prompts, 4)) == 6
