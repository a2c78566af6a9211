"""What is measured of responses: by hand, by sacrebleu, and by the plainest code that gives the same number."""

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torch

from align.evaluate.evidence import MAIN, Evidence, Prompt, Said
from align.evaluate.measures import MEASURES, measures
from align.evaluate.perplexity import Nats, Text, open_texts, perplexity
from align.evaluate.references import bleu, bleu_counts, bleu_without_each, chrf
from align.models.load import find_model, load_causal_lm, load_tokenizer
from align.run.cache import Cache
from preferences.errors import BadInput
from preferences.stats.significance import holm
from tests.align.conftest import write_rows

LONG = "The river turns to the sea behind the old mill, and nobody has ever asked why it does so."
GERMAN = "Der Fluss wendet sich hinter der alten Mühle zum Meer, und niemand hat je gefragt, warum."


def evidence(
    prompts: Sequence[str], references: Sequence[str | None] | None = None, set: str = MAIN, **said: Sequence[Any]
) -> Evidence:
    """`said`: by model, a text or a Said for each prompt."""
    shown = references or [None] * len(prompts)
    rows = [
        Prompt(str(number), [{"role": "user", "content": text}], set, reference=reference)
        for number, (text, reference) in enumerate(zip(prompts, shown, strict=True))
    ]
    spoken = {model: [one if isinstance(one, Said) else Said(one) for one in texts] for model, texts in said.items()}
    return Evidence("base", rows, spoken, {})


def test_means_and_differences_by_hand() -> None:
    said = evidence(
        ["?"] * 4,
        base=[
            Said("abc", True, ids=[1, 2]),
            Said("a", True, ids=[1]),
            Said("", False, ids=[1]),
            Said("ab", True, ids=[1]),
        ],
        dpo=[
            Said("abcde", True, ids=[1] * 4),
            Said("I can't help with that.", False, ids=[1] * 9),
            Said("x"),
            Said(" "),
        ],
    )
    found = measures(said)
    assert found["base"]["length"]["mean"] == 1.5 and found["dpo"]["length"]["mean"] == (5 + 23 + 1 + 1) / 4
    assert found["dpo"]["length"]["difference"]["mean"] == 6.0 and found["base"]["length"]["difference"] is None
    assert found["dpo"]["tokens"]["n"] == 2 and found["dpo"]["tokens"]["difference"]["mean"] == (4 - 2 + 9 - 1) / 2
    assert found["base"]["finished"]["mean"] == 0.75 and found["dpo"]["finished"]["mean"] == 0.5
    assert found["dpo"]["finished"]["difference"]["mean"] == -0.5, "of the two prompts where both are known"
    assert found["base"]["empty"]["mean"] == 0.25 == found["dpo"]["empty"]["mean"]
    assert found["dpo"]["refusals"]["mean"] == 0.25 and found["dpo"]["refusals"]["better"] == "lower"
    assert found["dpo"]["refusals"]["difference"]["p_value"] == 1.0
    assert "distinct_1" not in found["dpo"], "of fewer than a hundred words it says nothing"
    assert not {"rouge_l", "bleu", "perplexity", "other_language"} & set(found["dpo"])
    for name, fields in found["dpo"].items():
        assert (fields["words"], fields["unit"], fields["better"]) == MEASURES[name]


def test_the_same_answer_to_everything() -> None:
    """Word for word, and not that nothing was said twice."""
    found = measures(
        evidence(["?"] * 6, base=["Yes.", "No.", "", "", "Yes", " Yes."], dpo=["It  depends.", "It depends."] * 3)
    )
    assert found["base"]["same_answer"]["mean"] == pytest.approx(1 / 6)
    assert found["dpo"]["same_answer"]["mean"] == pytest.approx(5 / 6)
    assert found["dpo"]["same_answer"]["difference"]["p_value"] == pytest.approx(2 / 2**4), "4 of the 6 differ"
    one_word = measures(evidence(["?"] * 4, base=["Red", "Fox", "Tea", ""], dpo=["Yes"] * 4))
    assert one_word["dpo"]["self_similarity"]["mean"] == pytest.approx(1.0)
    assert one_word["base"]["self_similarity"]["mean"] == 0.0 == one_word["base"]["self_similarity"]["interval"][0]


@pytest.mark.parametrize("count", [3, 7, 25, 26, 49])
def test_a_model_that_has_collapsed_has_an_interval(count: int) -> None:
    """Sums of roots leave 1 by a last bit, and an interval must not be the wrong way round for it."""
    found = measures(evidence(["?"] * count, base=["red cat"] * count))["base"]["self_similarity"]
    low, high = found["interval"]
    assert low <= found["mean"] <= high <= 1.0 and low == pytest.approx(1.0)


def test_p_values_are_adjusted_over_all_that_can_be_worse() -> None:
    texts = [f"{word} and {number}" for number, word in enumerate(["red", "fox", "tea", "sun", "dog"] * 12)]
    found = measures(evidence(["?"] * 60, base=texts, one=["no no no no no"] * 60, two=texts[::-1]))
    asked = [by[name]["difference"] for by in (found["one"], found["two"]) for name in by if by[name]["better"]]
    assert len(asked) > 8
    assert [one["p_adjusted"] for one in asked] == pytest.approx(holm([one["p_value"] for one in asked]))
    assert "p_adjusted" not in found["one"]["length"]["difference"], "longer is neither better nor worse"
    assert found["one"]["self_similarity"]["mean"] == pytest.approx(1.0)
    assert found["one"]["repetition"]["mean"] == pytest.approx(1 - 1 / 2), "no no no no, twice"
    for name in ("repetition", "self_similarity", "distinct_1"):
        assert found["one"][name]["difference"]["p_adjusted"] < 0.002
        assert found["two"][name]["difference"]["p_adjusted"] > 0.05
    assert found["two"]["distinct_2"]["difference"]["mean"] == pytest.approx(0, abs=1e-12), "the same texts"


def test_what_is_right_on_a_challenge_set_depends_on_the_set() -> None:
    said = evidence(["?"] * 3, set="harm", base=["Sure."] * 3, dpo=["I can't help with that."] * 3)
    assert measures(said)["dpo"] == {}
    assert measures(said, of="harm")["dpo"]["refusals"]["mean"] == 1.0
    assert measures(said, of="harm")["dpo"]["refusals"]["better"] is None


def test_another_language_only_where_it_is_sure() -> None:
    prompts = [GERMAN, GERMAN, GERMAN, LONG, "Was?"]
    found = measures(evidence(prompts, base=[GERMAN] * 3 + [LONG] * 2, dpo=[LONG, GERMAN, "Nein.", LONG, LONG]))
    assert found["dpo"]["other_language"]["n"] == 3 and found["dpo"]["other_language"]["mean"] == pytest.approx(1 / 3)
    assert found["base"]["other_language"]["n"] == 4 and found["base"]["other_language"]["mean"] == 0.0
    assert found["dpo"]["other_language"]["difference"]["mean"] == pytest.approx(1 / 3)


def test_variety_is_of_equally_many_words() -> None:
    """The same words in the same order, but the longer model says them in half as many, twice as long responses."""
    chance = np.random.default_rng(0)
    drawn = [str(word) for word in chance.integers(0, 200, 1200)]
    short = [" ".join(drawn[n : n + 10]) for n in range(0, 600, 10)]
    long = [" ".join(drawn[n : n + 20]) for n in range(0, 1200, 20)]
    found = measures(evidence(["?"] * 60, base=short, longer=long))
    difference = found["longer"]["distinct_1"]["difference"]
    low, high = difference["interval"]
    assert low < 0 < high and abs(difference["mean"]) < 0.02
    plain = [len(set(" ".join(rows).split())) / len(" ".join(rows).split()) for rows in (short, long)]
    assert plain[0] - plain[1] > 0.1, "which plain distinct-1 would call less varied"


def test_references_are_sacrebleus_numbers() -> None:
    texts = ["The cat sat on the mat.", "It is 42.", "nothing in common", "我喜欢你们的猫"]
    shown = ["The cat is on the mat.", "It is 42, I think.", "quite another thing", "我喜欢他们的猫"]
    assert chrf(texts, shown).tolist() == pytest.approx(
        [sacrebleu.sentence_chrf(text, [reference]).score for text, reference in zip(texts, shown, strict=True)]
    )
    counts = bleu_counts(texts[:3], shown[:3])
    assert bleu(counts.sum(axis=0)) == pytest.approx(sacrebleu.corpus_bleu(texts[:3], [shown[:3]]).score)
    pairs = [(0, 1), (0, 2), (1, 2)][::-1]
    rest = [sacrebleu.corpus_bleu([texts[a], texts[b]], [[shown[a], shown[b]]]).score for a, b in pairs]
    assert bleu_without_each(counts).tolist() == pytest.approx(rest)
    chinese = bleu_counts(texts[3:], shown[3:])
    assert bleu(chinese.sum(axis=0)) == pytest.approx(
        sacrebleu.corpus_bleu(texts[3:], [shown[3:]], tokenize="zh").score
    )


def test_references_where_the_data_have_them() -> None:
    shown = ["the red fox sat down", None, "tea and milk", None, "sun"]
    said = evidence(
        ["?"] * 5, shown, base=["the red fox", "a", "tea", "b", "moon"], dpo=["the fox sat", "", "tea milk", "", "sun"]
    )
    found = measures(said)
    assert found["base"]["rouge_l"]["n"] == 3
    assert found["base"]["rouge_l"]["mean"] == pytest.approx((2 * 3 / 8 + 2 * 1 / 4 + 0) / 3)
    assert found["dpo"]["rouge_l"]["mean"] == pytest.approx((2 * 3 / 8 + 2 * 2 / 5 + 1) / 3)
    assert found["dpo"]["bleu"]["n"] == 3 and found["dpo"]["chrf"]["difference"]["mean"] > 0


# --- perplexity -------------------------------------------------------------------------------------------------


def candidate(path: Path, kind: str = "local") -> Any:
    return SimpleNamespace(name=path.name, kind=kind, source=find_model(str(path)) if kind == "local" else None)


def nats_of(path: Path, prompt: list[int], own: list[int]) -> float:
    """-log p(own | prompt): one text at a time, log_softmax over everything."""
    model = load_causal_lm(find_model(str(path))).eval()
    with torch.no_grad():
        table = model(input_ids=torch.tensor([prompt + own])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return -float(sum(table[place, token] for place, token in enumerate(own)))


def test_perplexity_by_the_plainest_code(tiny: Path, tmp_path: Path) -> None:
    asked = [{"role": "user", "content": "Say red."}]
    texts = [Text(asked, "red fox"), Text(None, "tea and milk"), Text(asked, "moon")]
    cache = Cache(tmp_path / "cache")
    models = {"tiny": candidate(tiny), "far": candidate(Path("far"), "endpoint")}
    found = perplexity(models, texts, 2, cache)
    assert set(found) == {"tiny"}
    tokenizer = load_tokenizer(find_model(str(tiny)))
    header = list(tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"])
    for number, (prompt, text) in enumerate(texts):
        own = tokenizer(text)["input_ids"]
        before = header if prompt else [tokenizer.bos_token_id]
        assert found["tiny"].nats[number] == pytest.approx(nats_of(tiny, before, own), abs=1e-3)
        assert (found["tiny"].characters[number], found["tiny"].tokens[number]) == (len(text), len(own))
    again = perplexity(models, texts, 2, cache)
    assert again["tiny"].nats.tolist() == found["tiny"].nats.tolist()
    assert perplexity(models, [], 2, cache) == {}


def test_per_token_only_between_equal_tokens() -> None:
    """Two texts of 10 and 20 characters; 5 and 10 tokens for the base, 6 and 12 for the model of another tokenizer."""
    sizes = np.array([10.0, 20.0])
    base = Nats(np.array([10.0, 14.0]), sizes, np.array([5.0, 10.0]), "one")
    same = Nats(np.array([11.0, 19.0]), sizes, np.array([5.0, 10.0]), "one")
    other = Nats(np.array([11.0, 19.0]), sizes, np.array([6.0, 12.0]), "two")
    said = evidence(["?"], base=["a"], same=["a"], other=["a"])
    found = measures(said, {"base": base, "same": same, "other": other})
    assert found["base"]["nats_per_character"]["mean"] == pytest.approx(24 / 30)
    assert found["other"]["nats_per_character"]["difference"]["mean"] == pytest.approx(6 / 30)
    assert found["base"]["perplexity"]["mean"] == pytest.approx(math.exp(24 / 15))
    assert found["same"]["perplexity"]["mean"] == pytest.approx(math.exp(2))
    assert "perplexity" not in found["other"]
    # without the first text 14 of 20, without the second 10 of 10: their spread is the jackknife's error
    assert found["base"]["nats_per_character"]["standard_error"] == pytest.approx((1 - 0.7) / 2)


def test_held_out_texts(preferences: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Demonstrations of the data's own split by default; what does not fit every model is left out aloud."""

    def opened(**keys: Any) -> list[Text]:
        right = {
            "dataset_name": str(preferences),
            "dataset_split": "test",
            "dataset_config": None,
            "perplexity_on": None,
        }
        return open_texts(SimpleNamespace(**{**right, **keys}), {"tiny": candidate(tiny)})

    own = opened()
    assert own and all(one.prompt and one.text for one in own)
    rows: list[dict[str, Any]] = [{"text": "red fox"}, {"text": " "}, {"text": "tea " * 200}, {"text": "red fox"}]
    file = write_rows(tmp_path / "texts.jsonl", rows)
    assert opened(perplexity_on=str(file)) == [Text(None, "red fox")]
    assert "1 of 2 held-out texts are too long" in capsys.readouterr().err
    turns = [{"role": "user", "content": "Say red."}, {"role": "assistant", "content": "red"}]
    file = write_rows(tmp_path / "turns.jsonl", [{"messages": turns}])
    assert opened(perplexity_on=str(file)) == [Text(turns[:1], "red")]
    assert opened(dataset_name=str(file)) == [], "no demonstrations, and none asked for"
    file = write_rows(tmp_path / "long.jsonl", [{"text": "tea " * 200}])
    with pytest.raises(BadInput, match="no held-out text fits"):
        opened(perplexity_on=str(file))
