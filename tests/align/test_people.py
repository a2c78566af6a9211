"""People as a judge: whose verdict counts on which responses, and what is left out is counted."""

from pathlib import Path
from typing import Any

import pytest

from align.evaluate.config import JudgeKeys
from align.evaluate.evidence import Evidence, Prompt, Said, pair_id
from align.evaluate.judge_agreement import judge_facts
from align.evaluate.people import cells_of, open_people
from align.run.cache import Cache
from preferences.errors import BadInput
from preferences.files import sha256_json
from preferences.judgements import Judgement, write_judgements

TURNS = [[{"role": "user", "content": text}] for text in ("One?", "Two?", "Three?")]
PROMPTS = [Prompt(sha256_json(turns)[:16], turns) for turns in TURNS]
RESPONSES = {
    "base": [Said("aa"), Said("bb"), Said("cc")],
    "dpo": [Said("a"), Said("bbb"), Said("c")],
    "ppo": [Said("xa"), Said("xb"), Said("xc")],
}


def row(number: int, preference: float, rater: str | None = "p1", **more: Any) -> Judgement:
    """A verdict on the dpo's and the base's responses to a prompt, under the id of this pair."""
    texts = {name: RESPONSES[name][number].text for name in ("dpo", "base")}
    facts = {"prompt": pair_id(PROMPTS[number].id, texts), "candidate": "dpo", "baseline": "base"}
    return Judgement(**{**facts, "preference": preference, "rater": rater, **more})


def judged(path: Path, rows: list[Judgement], responses: Any = RESPONSES, prompts: list[Prompt] = PROMPTS) -> Any:
    write_judgements(path, rows)
    judge = open_people("people", str(path), prompts, responses, "r.yaml: judge people")
    return judge.judge("base", prompts, responses, Cache(None))


def test_raters_are_averaged_and_kept(tmp_path: Path) -> None:
    """Prompt 1: two of three for the dpo, one of them asked the other way round. Prompt 2: a tie. Prompt 3: nobody."""
    turned = row(0, 1.0, "p2").turned()
    assert (turned.candidate, turned.preference) == ("base", 0.0)
    found = judged(tmp_path / "j.jsonl", [row(0, 1.0), turned, row(0, 0.0, "p3"), row(1, 0.5)])
    assert found.preferences == {"dpo": [pytest.approx(2 / 3), 0.5, None], "ppo": [None, None, None]}
    assert found.scores is None
    assert [(j.prompt, j.candidate, j.baseline, j.preference, j.rater) for j in found.judgements] == [
        (PROMPTS[0].id, "dpo", "base", 1.0, "p1"),
        (PROMPTS[0].id, "dpo", "base", 1.0, "p2"),
        (PROMPTS[0].id, "dpo", "base", 0.0, "p3"),
        (PROMPTS[1].id, "dpo", "base", 0.5, "p1"),
    ]
    facts = found.facts
    assert (facts["kind"], facts["raters"], facts["judgements"], facts["used"]) == ("people", 3, 4, 4)
    cells = cells_of(found, "dpo", "base", PROMPTS, [1, 0])
    assert cells is not None and sorted(cells) == [(0, "p1", 0.5), (1, "p1", 1.0), (1, "p2", 1.0), (1, "p3", 0.0)]
    assert cells_of(found, "ppo", "base", PROMPTS, [0, 1]) is None


def test_how_far_people_agree_with_each_other(tmp_path: Path) -> None:
    """Prompt 1: two of three agree, one pair of three; prompt 2: both say tie; prompt 3: one rater only."""
    rows = [row(0, 1.0), row(0, 1.0, "p2").turned(), row(0, 0.0, "p3"), row(1, 0.5), row(1, 0.5, "p2"), row(2, 1.0)]
    people = judged(tmp_path / "j.jsonl", rows)
    facts = judge_facts(Evidence("base", PROMPTS, RESPONSES, {"people": people}))["people"]
    assert (facts["between_raters"]["mean"], facts["between_raters"]["n"]) == (0.5, 4)
    alone = judged(tmp_path / "j.jsonl", [row(0, 1.0)])
    assert "between_raters" not in judge_facts(Evidence("base", PROMPTS, RESPONSES, {"people": alone}))["people"]


def test_what_is_about_something_else_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another prompt, another model, and the same models' earlier responses, by hash or only by length."""
    earlier = pair_id(PROMPTS[0].id, {"dpo": "an earlier one", "base": "aa"})
    rows = [
        row(0, 1.0),
        row(0, 0.0, "p2", prompt="q17"),
        row(0, 0.0, "p3", candidate="gpt"),
        row(0, 0.0, "p4", prompt=earlier),
        row(0, 0.0, "p5", prompt=PROMPTS[0].id, candidate_length=14, baseline_length=2),
    ]
    found = judged(tmp_path / "j.jsonl", rows)
    assert found.preferences["dpo"] == [1.0, None, None]
    counts = {key: value for key, value in found.facts.items() if key.startswith("other_")}
    assert counts == {"other_prompts": 1, "other_models": 1, "other_responses": 2}
    assert found.facts["used"] == found.facts["raters"] == 1
    assert (
        "1 of 5 judgements count; 1 are about other prompts, 1 are about other models, 2 are" in capsys.readouterr().err
    )


@pytest.mark.parametrize("name", ["id", "hash", "text"])
def test_a_prompt_by_id_hash_or_text(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Verdicts that don't say which responses they are about are used, and it is said."""
    named = {"id": PROMPTS[2].id, "hash": sha256_json(TURNS[2]), "text": "Three?"}[name]
    found = judged(tmp_path / "j.jsonl", [row(2, 0.0, prompt=named)])
    assert found.preferences["dpo"] == [None, None, 0.0]
    assert found.judgements[0].prompt == PROMPTS[2].id
    assert found.facts["responses_not_said"] == 1
    assert "1 of them don't say which responses they are about" in capsys.readouterr().err
    sized = row(2, 0.0, prompt=named, candidate_length=1, baseline_length=2)
    assert judged(tmp_path / "j.jsonl", [sized]).facts["responses_not_said"] == 0


def test_verdicts_on_two_models_beside_the_base_are_kept_for_their_strengths(tmp_path: Path) -> None:
    found = judged(tmp_path / "j.jsonl", [row(0, 1.0, prompt="One?", baseline="ppo")])
    assert found.preferences == {"dpo": [None] * 3, "ppo": [None] * 3}
    assert [(j.candidate, j.baseline) for j in found.judgements] == [("dpo", "ppo")]


def test_one_prompt_in_two_sets_is_judged_where_its_responses_are(tmp_path: Path) -> None:
    prompts = [*PROMPTS, PROMPTS[0]._replace(set="safety")]
    responses = {name: [*said, Said(said[0].text + "!")] for name, said in RESPONSES.items()}
    assert judged(tmp_path / "j.jsonl", [row(0, 1.0)], responses, prompts).preferences["dpo"] == [1.0, None, None, None]
    both = judged(tmp_path / "j.jsonl", [row(0, 1.0, prompt="One?")], responses, prompts)
    assert both.preferences["dpo"] == [1.0, None, None, 1.0]


def test_without_raters_they_are_just_judgements_and_places_show(tmp_path: Path) -> None:
    """Two verdicts for the response shown first, of four."""
    rows = [row(0, 1.0, None, judge="x", order=0), row(0, 1.0, None, judge="x", order=1)]
    rows += [row(1, 1.0, None, judge="x", order=0), row(1, 1.0, None, judge="x", order=1)]
    found = judged(tmp_path / "j.jsonl", rows)
    assert found.facts["kind"] == "judgements" and found.facts["raters"] is None
    assert cells_of(found, "dpo", "base", PROMPTS, [0, 1]) is None
    bias = judge_facts(Evidence("base", PROMPTS, RESPONSES, {"people": found}))["people"]["bias"]
    assert (bias["position"]["first_share"]["mean"], bias["position"]["first_share"]["n"]) == (0.5, 4)
    assert (bias["position"]["flips"]["mean"], bias["position"]["flips"]["n"]) == (0.0, 2)
    assert (bias["length"]["longer_share"]["mean"], bias["length"]["longer_share"]["n"]) == (0.5, 2)


def test_a_file_about_other_things_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    assert JudgeKeys(judgements=str(path)).source == str(path)

    def refused(*rows: Judgement) -> str:
        write_judgements(path, rows)
        with pytest.raises(BadInput) as error:
            open_people("people", str(path), PROMPTS, RESPONSES, "r.yaml: judge people")
        return str(error.value)

    assert "none of the 1 judgements" in refused(row(0, 1.0, prompt="q17")) and "'q17'" in refused(
        row(0, 1.0, prompt="q17")
    )
    said = refused(row(0, 1.0, candidate="Qwen", baseline="gpt"))
    assert "those there are called Qwen, gpt: give the models in the recipe these names" in said
    path.write_text('{"prompt": "q"}\n')
    with pytest.raises(BadInput, match=r"j\.jsonl, line 1"):
        open_people("people", str(path), PROMPTS, RESPONSES, "r.yaml")


def test_the_same_text_is_a_tie_that_nobody_is_asked_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of ten prompts four have the same two responses. Three of the other six were judged: half, so two ties count."""
    turns = [[{"role": "user", "content": f"Number {number}?"}] for number in range(10)]
    prompts = [Prompt(sha256_json(one)[:16], one) for one in turns]
    prompts += [prompts[0]._replace(set="safety")]
    said = {
        "base": [Said(f"b{n}") for n in range(10)] + [Said("b")],
        "dpo": [Said(f"{'bd'[n > 3]}{n}") for n in range(10)],
    }
    said["dpo"] += [Said("b")]

    def row(number: int, preference: float, rater: str) -> Judgement:
        texts = {name: said[name][number].text for name in ("dpo", "base")}
        facts = {"prompt": pair_id(prompts[number].id, texts), "candidate": "dpo", "baseline": "base"}
        return Judgement(**facts, preference=preference, rater=rater, rater_groups=[f"of {rater}"])

    rows = [row(n, value, rater) for n, value in ((4, 1.0), (5, 1.0), (6, 0.0)) for rater in ("p1", "p2")]
    found = judged(tmp_path / "j.jsonl", rows, said, prompts)
    first = sorted(range(4), key=lambda number: prompts[number].id)[:2]
    wanted = {4: 1.0, 5: 1.0, 6: 0.0} | dict.fromkeys(first, 0.5)
    assert found.preferences["dpo"] == [wanted.get(number) for number in range(11)]
    assert (found.facts["same_text"], found.facts["used"], found.facts["raters"]) == (2, 6, 2)
    assert "2 pairs of the same text, which nobody was asked about, count as ties" in capsys.readouterr().err
    cells = cells_of(found, "dpo", "base", prompts, [4, 5, 6, *first])
    assert cells is not None and len(cells) == 10
    assert {(cell.who, cell.value) for cell in cells if cell.prompt > 2} == {("p1", 0.5), ("p2", 0.5)}
    ties = [one for one in found.judgements if one.preference == 0.5]
    assert {tuple(one.rater_groups) for one in ties if one.rater == "p1"} == {("of p1",)}

    # All six judged: all four count. Verdicts on prompts that were named otherwise: nobody knows what was asked.
    rows = [row(n, 1.0, "p1") for n in range(4, 10)]
    found = judged(tmp_path / "j.jsonl", rows, said, prompts)
    assert found.preferences["dpo"] == [0.5] * 4 + [1.0] * 6 + [None]
    by_text = [one.model_copy(update={"prompt": f"Number {n}?"}) for n, one in zip(range(4, 10), rows, strict=True)]
    assert judged(tmp_path / "j.jsonl", by_text, said, prompts).preferences["dpo"] == [None] * 4 + [1.0] * 6 + [None]
