"""The loop closes: models answer, people judge blind through the real server, and the numbers are those by hand."""

import json
import re
from collections import defaultdict
from html import unescape
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from preferences.contract import Item, read_items
from preferences.files import sha256_file
from tests.align.conftest import done, refused, tiny, write_recipe, write_rows  # noqa: F401
from tests.annotate.conftest import Annotate, Server, annotate  # noqa: F401

GOLD = {
    "id": "mine",
    "prompt": "What is 2 + 2?",
    "responses": ["It is 4.", "It is 5."],
    "gold": [1, 2],
    "explanation": "Count.",
}
THINGS = ["red", "green", "blue", "a cat", "a dog", "a fox", "the sun", "the moon", "a star", "tea", "milk", "soup"]


def visible(turns: list[dict[str, str]]) -> str:
    return unescape(re.sub(r"<[^>]+>", "", " ".join(turn["html"] for turn in turns))).strip()


class Opinion:
    """How a rater judges two texts: a value each, the larger is better."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ranks(self, texts: list[str]) -> list[int]:
        values = {
            "anna": [len(text) for text in texts],
            "ben": [sum(map(ord, text)) % 3 for text in texts],
            "cem": [0 for _ in texts],
        }[self.name]
        return [1 + sum(other > value for other in values) for value in values]


def rate_all(server: Server, login: str) -> int:
    """Answer whatever comes, by the texts on the screen. Nothing that the server sends may name a model."""
    visitor, rater = server.visitor(login), Opinion(login)
    sent: list[str] = []
    visitor.http.event_hooks["response"].append(lambda answer: sent.append(answer.read().decode()))
    answered = 0
    following = visitor.next()
    while following["task"] is not None:
        task = following["task"]
        shown = [visible(turns) for turns in task["responses"]]
        ranks = [1, 2] if shown == ["It is 4.", "It is 5."] else [2, 1] if "It is 4." in shown else rater.ranks(shown)
        answer = visitor.submit(task["assignment"], ranks, key=f"{login}-{answered:06}")
        assert answer.status_code == 200, answer.text
        answered, following = answered + 1, answer.json()["next"]
    visitor.http.get(f"{visitor.project}/answers/mine")
    visitor.http.get(f"{visitor.project}/mine")
    said = " ".join(sent)
    assert len(sent) > answered and not any(
        name in said for name in ("model-under-test", "the-base", '"gold"', "tag-x")
    )
    return answered


def by_hand(items: list[Item], raters: list[str]) -> dict[str, float]:
    """{item id: mean preference for the candidate}, from the pairs' own texts."""
    found: dict[str, float] = {}
    for item in items:
        texts = [response.messages[0].content.strip() for response in item.responses]
        candidate = [response.model for response in item.responses].index("model-under-test")
        said = []
        for name in raters:
            ranks = Opinion(name).ranks(texts)
            said.append(
                0.5 + 0.5 * ((ranks[1 - candidate] > ranks[candidate]) - (ranks[1 - candidate] < ranks[candidate]))
            )
        found[item.id] = mean(said)
    return found


def test_from_samples_to_a_verdict_of_people(annotate: Annotate, tiny: Path) -> None:  # noqa: F811
    home = annotate.folder
    data = [{"prompt": f"Say {thing}.", "tags": ["tag-x"] if n % 2 else []} for n, thing in enumerate(THINGS)]
    hot = {"model": str(tiny), "temperature": 1.3}
    keys: dict[str, Any] = {
        "models": {"the-base": str(tiny), "model-under-test": hot},
        "base": "the-base",
        "dataset_name": str(write_rows(home / "prompts.jsonl", data)),
        "dataset_split": "train",
        "output_dir": str(home / "report"),
        "cache_dir": str(home / "cache"),
        "max_new_tokens": 8,
        "seed": 3,
    }
    recipe, pairs = write_recipe(home / "evaluate.yaml", **keys), home / "pairs.jsonl"
    gold = write_rows(home / "gold.jsonl", [GOLD])
    done("evaluate", recipe, "--to-annotate", pairs, "--overlap", "3", "--gold", gold)
    items = [item for item in read_items(pairs) if item.gold is None]
    identical = len(THINGS) - len(items)

    annotate.ok("project", "create", "p", "--practice", "1", "--gold-rate", "0")
    annotate.ok("import", "p", "pairs.jsonl")
    annotate.person("p", "olga", "--role", "owner")
    for login in ("anna", "ben", "cem"):
        annotate.person("p", login)
    with annotate.served(api_only=True) as server:
        for login in ("anna", "ben", "cem"):
            assert rate_all(server, login) == len(items) + 1  # and the gold item, as practice
    counts = annotate.json("export", "p", "--judgements", "people.jsonl")["counts"]
    assert counts == {"judgements": 3 * len(items), "items": len(items), "raters": 3, "without_models": 0}
    rows = annotate.rows("people.jsonl")
    assert not any(login in json.dumps(rows) for login in ("anna", "ben", "cem", "mine"))

    expected = by_hand(items, ["anna", "ben", "cem"])
    assert 0 < mean(expected.values()) < 1 and len(set(expected.values())) > 2
    (fields,) = json.loads(done("winrate", home / "people.jsonl", "--baseline", "the-base", "--json").out)["pairs"]
    assert (fields["candidate"], fields["baseline"], fields["n"]) == ("model-under-test", "the-base", len(items))
    assert fields["win_rate"] == pytest.approx(mean(expected.values()), abs=1e-12)
    assert fields["ties"] == sum(value == 0.5 for value in expected.values())

    keys |= {"judges": {"people": str(home / "people.jsonl")}}
    said = done("evaluate", write_recipe(home / "again.yaml", **keys))
    assert f"{3 * len(items)} of {3 * len(items)} judgements count" in said.err
    assert f"({len(THINGS)} from the cache)" in said.err  # these are the responses that people judged
    metrics = json.loads((home / "report/metrics.json").read_text())
    found = metrics["models"]["model-under-test"]["judges"]["people"]
    whole = [*expected.values(), *[0.5] * identical]
    assert (metrics["verdict_by"], metrics["judges"]["people"]["kind"]) == ("people", "people")
    assert (found["n"], found["raters"]) == (len(THINGS), 3) and len(whole) == len(THINGS)
    assert found["win_rate"] == pytest.approx(mean(whole), abs=1e-12)
    samples = [json.loads(line) for line in (home / "report/samples.jsonl").read_text().splitlines()]
    by_prompt: dict[str, float] = defaultdict(lambda: 0.5) | {key.rpartition("-")[0]: v for key, v in expected.items()}
    for sample in samples:
        value = sample["preferences"]["people"]["model-under-test"]
        assert value == pytest.approx(by_prompt.get(sample["id"], 0.5), abs=1e-12)

    # And on to the gate and the decision.
    rule = f"model-under-test.n >= {len(THINGS)}"  # a win rate of so few prompts passes no gate
    assert "1 of 1 rules pass" in done("gate", home / "report", "--rule", rule).out
    done("decide", home / "report", "ship", "--model", "model-under-test", "--by", "olga")
    (decision,) = annotate.rows("report/decisions.jsonl")
    assert decision["weights"] == {str(tiny): {"model.safetensors": sha256_file(tiny / "model.safetensors")}}
    with open(home / "report/samples.jsonl", "a") as stream:
        stream.write("\n")
    assert "samples.jsonl is not what the evaluation wrote" in refused(
        "decide", home / "report", "stop", "--model", "model-under-test", "--by", "olga"
    )
