"""A small file of each tool's documented shape, read; and what has no place there, counted."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from preferences.contract import Item
from preferences.formats import read_format, write_format
from preferences.formats.records import from_items


def read(tmp_path: Path, name: str, rows: Any, file: str = "rows.jsonl") -> tuple[list[Item], list[str]]:
    text = json.dumps(rows) if file.endswith(".json") else "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / file).write_text(text)
    return read_format(tmp_path / file, name)


def one(tmp_path: Path, name: str, row: Any) -> Item:
    [item], _ = read(tmp_path, name, [row])
    return item


def texts(item: Item) -> tuple[list[str], list[str]]:
    """The prompt and the responses, turn by turn."""
    said = [f"{turn.role}: {turn.content}" for turn in item.prompt]
    return said, [" | ".join(turn.content for turn in response.messages) for response in item.responses]


ASK, BLUE, GREEN = (
    {"role": "user", "content": "Sky?"},
    {"role": "assistant", "content": "Blue."},
    {"role": "assistant", "content": "Green."},
)
SYSTEM = {"role": "system", "content": "Be brief."}
SKY = ["user: Sky?"], ["Blue.", "Green."]


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("trl", {"prompt": [ASK], "chosen": [BLUE], "rejected": [GREEN]}),
        ("trl", {"prompt": "Sky?", "chosen": "Blue.", "rejected": "Green."}),
        ("trl", {"chosen": [ASK, BLUE], "rejected": [ASK, GREEN]}),
        (
            "hh-rlhf",
            {"chosen": "\n\nHuman: Sky?\n\nAssistant: Blue.", "rejected": "\n\nHuman: Sky?\n\nAssistant: Green."},
        ),
        ("openrlhf", {"prompt": "Sky?", "chosen": "Blue.", "rejected": "Green."}),
        ("openrlhf", {"chosen": [ASK, BLUE], "rejected": [ASK, GREEN]}),
        ("axolotl", {"messages": [ASK], "chosen": BLUE, "rejected": GREEN}),
        ("axolotl", {"messages": [ASK], "chosen": [ASK, BLUE], "rejected": [ASK, GREEN]}),
        ("axolotl", {"instruction": "Sky?", "chosen_response": "Blue.", "rejected_response": "Green."}),
        ("axolotl", {"question": "Sky?", "chosen": "Blue.", "rejected": "Green."}),
        ("axolotl", {"input": "Sky?", "chosen": "Blue.", "rejected": "Green."}),
        ("axolotl", {"prompt": "Sky?", "chosen": [ASK, BLUE], "rejected": [ASK, GREEN]}),
        ("axolotl", {"chosen": [ASK, BLUE], "rejected": [ASK, GREEN]}),
        ("axolotl", {"prompt": "Sky?", "answers": [{"answer": "Blue.", "rank": 1}, {"answer": "Green.", "rank": 2}]}),
        ("llama-factory", {"instruction": "Sky?", "input": "", "chosen": "Blue.", "rejected": "Green."}),
        (
            "llama-factory",
            {
                "conversations": [{"from": "human", "value": "Sky?"}],
                "chosen": {"from": "gpt", "value": "Blue."},
                "rejected": {"from": "gpt", "value": "Green."},
            },
        ),
        (
            "ultrafeedback-binarized",
            {
                "prompt": "Sky?",
                "prompt_id": "a",
                "chosen": [ASK, BLUE],
                "rejected": [ASK, GREEN],
                "messages": [ASK, BLUE],
                "score_chosen": 8.5,
                "score_rejected": 6.0,
            },
        ),
    ],
)
def test_a_pair(tmp_path: Path, name: str, row: dict[str, Any]) -> None:
    item = one(tmp_path, name, row)
    assert texts(item) == SKY
    assert item.answers[0].ranks == [1, 2]


def test_trl_unpaired_compares_the_responses_to_one_prompt(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Sky?", "completion": "Green.", "label": False},
        {"prompt": "Alone?", "completion": "Yes.", "label": True},
        {"prompt": "Sky?", "completion": "Blue.", "label": True},
        {"prompt": "Sky?", "completion": "Azure.", "label": True},
    ]
    [item], lost = read(tmp_path, "trl", rows)
    assert texts(item) == (["user: Sky?"], ["Green.", "Blue.", "Azure."])
    assert item.answers[0].ranks == [3, 1, 1]
    assert lost == ["unpaired: 1 responses have no response of the other label to the same prompt, and are left out"]


def test_implicit_texts_part_between_words(tmp_path: Path) -> None:
    item = one(tmp_path, "trl", {"chosen": "The sky is blue.", "rejected": "The sky is brown."})
    assert texts(item) == (["user: The sky is"], [" blue.", " brown."])


def test_hh_dialogues_that_part_early_have_responses_of_several_turns(tmp_path: Path) -> None:
    start = "\n\nHuman: Hi\n\nAssistant: "
    row = {
        "chosen": start + "Hello\n\nHuman: How?\n\nAssistant: Well",
        "rejected": start + "No\n\nHuman: Why?\n\nAssistant: ",
    }
    item = one(tmp_path, "hh-rlhf", row)
    assert texts(item) == (["user: Hi"], ["Hello | How? | Well", "No | Why? | "])
    write_format(tmp_path / "back.jsonl", "hh-rlhf", from_items([item]))
    assert json.loads((tmp_path / "back.jsonl").read_text()) == row


def test_hh_dialogues_without_a_common_beginning_are_counted(tmp_path: Path) -> None:
    good = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
    bad = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: z\n\nAssistant: b"}
    items, lost = read(tmp_path, "hh-rlhf", [good, bad])
    assert len(items) == 1
    assert lost == ["prompts: 1 rows have two conversations without a common beginning, and are left out"]


def test_ultrafeedback(tmp_path: Path) -> None:
    def completion(model: str, overall: float, helpful: str) -> dict[str, Any]:
        rated = {"helpfulness": {"Rating": helpful, "Rationale": "So.", "Type": ["1"]}, "honesty": {"Rating": "N/A"}}
        return {
            "model": model,
            "principle": "honesty",
            "custom_system_prompt": "Be honest.",
            "response": f"I am {model}.",
            "annotations": rated,
            "critique": "Fine.",
            "overall_score": overall,
            "fine-grained_score": 4.25,
        }

    row = {
        "source": "sharegpt",
        "instruction": "Who?",
        "models": ["a", "b"],
        "completions": [completion("a", 6.0, "3"), completion("b", 8.5, "5"), completion("c", 6.0, "4")],
        "correct_answers": ["None"],
    }
    [item], lost = read(tmp_path, "ultrafeedback", [row])
    answer = item.answers[0]
    assert (answer.rater, answer.ranks) == ("gpt-4", [2, 1, 2])
    assert answer.ratings == {"overall_score": [6.0, 8.5, 6.0], "helpfulness": [3.0, 5.0, 4.0]}
    assert answer.rationale and answer.rationale.startswith("Response 1: Fine.\nResponse 1: helpfulness: So.")
    assert [response.model for response in item.responses] == ["a", "b", "c"]
    assert item.tags == ["sharegpt"]
    assert "`correct_answers`: 1 rows say it, and an import line has no place for it" in lost
    assert "`Rating`: 3 ratings are no number, and are left out" in lost


def test_helpsteer(tmp_path: Path) -> None:
    def row(prompt: str, response: str, helpful: Any) -> dict[str, Any]:
        more = {"correctness": 4, "coherence": 4, "complexity": 2, "verbosity": 1}
        return {"prompt": prompt, "response": response, "helpfulness": helpful, **more}

    talk = "c#\n<extra_id_1>Assistant\nA language.\n<extra_id_1>User\nMore"
    rows = [row(talk, "No.", 1), row(talk, "Yes.", [3, 4]), row("alone", "Hm.", 2)]
    [item], lost = read(tmp_path, "helpsteer", rows)
    assert texts(item) == (["user: c#", "assistant: A language.", "user: More"], ["No.", "Yes."])
    assert item.answers[0].ranks == [2, 1]
    assert item.answers[0].ratings is not None and item.answers[0].ratings["helpfulness"] == [1.0, 3.5]
    assert "single: 1 prompts have one response only, and are left out" in lost


def test_helpsteer_preferences_of_everybody(tmp_path: Path) -> None:
    third = {
        "domain": "code",
        "language": "python",
        "context": [SYSTEM, ASK],
        "response1": "Blue.",
        "response2": "Green.",
        "overall_preference": -2,
        "individual_preference": [
            {"score": -2, "reasoning": "True.", "feedback1": "Right.", "feedback2": "Wrong."},
            {"score": 0, "reasoning": "Same.", "feedback1": "", "feedback2": ""},
        ],
    }
    second = {
        "split": "train",
        "prompt": "Sky?",
        "response_1": "Blue.",
        "response_2": "Green.",
        "preference_strength": 1,
        "preference_statement": "@Response 2 is slightly better",
        "all_preferences_unprocessed": [
            {"strength": 1, "justification": "Nice."},
            {"strength": -100, "justification": "Bad."},
        ],
    }
    items, lost = read(tmp_path, "helpsteer-preference", [third, second])
    assert texts(items[0]) == (["system: Be brief.", "user: Sky?"], ["Blue.", "Green."])
    assert items[0].tags == ["code", "python"]
    assert [(answer.ranks, answer.strength) for answer in items[0].answers] == [([1, 2], -2), ([1, 1], 0)]
    assert items[0].answers[0].rationale == "True.\nResponse 1: Right.\nResponse 2: Wrong."
    assert [(answer.ranks, answer.strength) for answer in items[1].answers] == [([2, 1], 1)]
    assert len({answer.rater for item in items for answer in item.answers}) == 3  # places in a list are no persons
    assert "invalid: 1 answers take neither response, and are left out" in lost


def test_shp(tmp_path: Path) -> None:
    row = {
        "post_id": "qt3nxl",
        "domain": "askculinary_train",
        "upvote_ratio": 0.98,
        "history": "Raspberries?",
        "c_root_id_A": "hkh25sc",
        "c_root_id_B": "hkh25lp",
        "created_at_utc_A": 1636822112,
        "created_at_utc_B": 1636822110,
        "score_A": 340,
        "score_B": 166,
        "human_ref_A": "Freeze.",
        "human_ref_B": "Eat.",
        "labels": 1,
        "seconds_difference": 2.0,
        "score_ratio": 2.0481927711,
    }
    [item], lost = read(tmp_path, "shp", [row], "train.json")
    assert (item.group, item.tags, item.answers[0].ranks) == ("qt3nxl", ["askculinary_train"], [1, 2])
    assert item.answers[0].ratings == {"score": [340.0, 166.0]}
    assert [response.id for response in item.responses] == ["hkh25sc", "hkh25lp"]
    assert "`upvote_ratio`: 1 rows say it, and an import line has no place for it" in lost
    assert not any("score" in said for said in lost)


def test_llama_factory_follows_dataset_info(tmp_path: Path) -> None:
    row = {
        "talk": [{"who": "sys", "says": "Be brief."}, {"who": "person", "says": "Sky?"}],
        "good": {"who": "model", "says": "Blue."},
        "bad": {"who": "model", "says": "Green."},
    }
    tags = {
        "role_tag": "who",
        "content_tag": "says",
        "user_tag": "person",
        "assistant_tag": "model",
        "system_tag": "sys",
    }
    columns = {"messages": "talk", "chosen": "good", "rejected": "bad"}
    info = {
        "mine": {"file_name": "rows.jsonl", "formatting": "sharegpt", "ranking": True, "columns": columns, "tags": tags}
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    assert texts(one(tmp_path, "llama-factory", row)) == (["system: Be brief.", "user: Sky?"], ["Blue.", "Green."])


def test_llama_factory_alpaca_with_history(tmp_path: Path) -> None:
    row = {
        "instruction": "And",
        "input": "now?",
        "system": "Be brief.",
        "history": [["Hi", "Hello"]],
        "chosen": "Blue.",
        "rejected": "Green.",
    }
    expected = ["system: Be brief.", "user: Hi", "assistant: Hello", "user: And\nnow?"]
    assert texts(one(tmp_path, "llama-factory", row))[0] == expected


def test_kto_shapes(tmp_path: Path) -> None:
    def talk(reply: str) -> list[dict[str, str]]:
        return [{"from": "human", "value": "Sky?"}, {"from": "gpt", "value": reply}]

    sharegpt = [{"conversations": talk("Blue."), "kto_tag": True}, {"conversations": talk("Green."), "kto_tag": False}]
    plain = [
        {"prompt": "Sky?", "completion": "Blue.", "label": True},
        {"prompt": "Sky?", "completion": "Green.", "label": False},
    ]
    for name, rows in (("llama-factory", sharegpt), ("axolotl", plain)):
        [item], _ = read(tmp_path, name, rows)
        assert texts(item) == SKY


def test_argilla_questions(tmp_path: Path) -> None:
    ann, bob, cy = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222", "3"
    rows = [
        {
            "id": "r1",
            "fields": {"instruction": "Sky?", "generation-0": "Blue.", "generation-1": "Green."},
            "metadata": {"group": "colours", "length": 3},
            "suggestions": {"ranking": {"value": ["generation-1", "generation-0"], "score": None, "agent": "gpt-4"}},
            "responses": {
                "ranking": [
                    {"value": ["generation-1", "generation-0"], "user_id": ann},
                    {
                        "value": [{"value": "generation-0", "rank": 1}, {"value": "generation-1", "rank": 1}],
                        "user_id": bob,
                    },
                ],
                "generation-0-rating": [{"value": 2, "user_id": ann}, {"value": 4, "user_id": cy}],
                "generation-1-rating": [{"value": 5, "user_id": ann}, {"value": 1, "user_id": cy}],
                "comment": [{"value": "It is evening.", "user_id": ann}],
            },
            "vectors": {},
            "_server_id": "x",
        },
        {
            "id": "r2",
            "fields": {"prompt": "Sea?", "generation-0": "Blue.", "generation-1": "Green."},
            "responses": {"better": [{"value": "generation-0", "user_id": ann}, {"value": "Tie", "user_id": bob}]},
        },
    ]
    items, lost = read(tmp_path, "argilla", rows, "records.json")
    assert texts(items[0]) == SKY
    assert items[0].group == "colours"
    said = {answer.rater: answer for answer in items[0].answers}
    assert {rater: answer.ranks for rater, answer in said.items()} == {ann: [2, 1], bob: [1, 1], cy: [1, 2]}
    assert said[ann].ratings == {"rating": [2.0, 5.0]}
    assert said[ann].rationale == "It is evening."
    assert [answer.ranks for answer in items[1].answers] == [[1, 2], [1, 1]]
    assert "suggestions: 1 records have a suggestion, which no person gave, and it is left out" in lost
    assert "metadata: 1 metadata values have no place in an import line" in lost


def test_label_studio_exports_and_tasks(tmp_path: Path) -> None:
    compared = {
        "from_name": "comparison",
        "to_name": "comparison",
        "type": "pairwise",
        "value": {"selected": "right"},
    }
    stars = {"from_name": "clear", "to_name": "answer1", "type": "rating", "value": {"rating": 2}}
    why = {"from_name": "why", "to_name": "answer1", "type": "textarea", "value": {"text": ["Evening."]}}
    annotation = {
        "completed_by": 10,
        "lead_time": 4.3,
        "created_at": "2026-03-09T22:16:08.728353Z",
        "was_cancelled": False,
    }
    ranked = {"from_name": "rank", "to_name": "answers", "type": "ranker", "value": {"ranker": ["b", "a"]}}
    named = {**ranked, "value": {"ranker": {"rank": ["b", "a"]}}}  # so newer releases say it
    items_of = [{"id": "a", "title": "A", "body": "Blue."}, {"id": "b", "title": "B", "body": "Green."}]
    tasks = [
        {
            "id": 1,
            "data": {"prompt": "Sky?", "answer1": "Blue.", "answer2": "Green."},
            "annotations": [
                {
                    **annotation,
                    "result": [compared, stars, {**stars, "to_name": "answer2", "value": {"rating": 5}}, why],
                },
                {**annotation, "completed_by": {"id": 11, "email": "ann@example.org"}, "result": [compared]},
                {**annotation, "completed_by": 12, "was_cancelled": True, "result": []},
            ],
            "predictions": [],
            "project": 83,
            "total_annotations": 3,
        },
        {"id": 2, "data": {"prompt": "Sky?", "items": items_of}, "annotations": [{**annotation, "result": [ranked]}]},
        {"data": {"messages": [SYSTEM, ASK], "answer1": "Blue.", "answer2": "Green."}},
        {"data": {"prompt": "Sky?", "items": items_of}, "annotations": [{**annotation, "result": [named]}]},
    ]
    items, lost = read(tmp_path, "label-studio", tasks, "export.json")
    assert [texts(item)[1] for item in items] == [["Blue.", "Green."]] * 4
    first, second = items[0].answers
    assert (first.rater, first.ranks, first.seconds, first.rationale) == ("10", [2, 1], 4.3, "Evening.")
    assert first.ratings == {"clear": [2.0, 5.0]}
    assert first.submitted_at == "2026-03-09T22:16:08.728353Z"
    assert second.rater == "ann@example.org"
    assert items[1].answers[0].ranks == items[3].answers[0].ranks == [2, 1]
    assert items[2].answers == []
    assert lost == ["unranked: 1 annotations were cancelled or do not rank all responses, and are left out"]


def test_a_reason_is_no_vote_whatever_it_says(tmp_path: Path) -> None:
    fields = {"prompt": "Sky?", "answer_a": "Blue.", "answer_b": "Green."}
    said = {"rationale": [{"value": "same", "user_id": "u"}], "better": [{"value": "answer_b", "user_id": "u"}]}
    also = {"better": said["better"], "comment": [{"value": "answer_a", "user_id": "u"}]}
    rows = [{"id": number, "fields": fields, "responses": one} for number, one in enumerate((said, also))]
    items, lost = read(tmp_path, "argilla", rows)
    answers = [item.answers[0] for item in items]
    assert [(one.ranks, one.rationale) for one in answers] == [([2, 1], "same"), ([2, 1], "answer_a")] and lost == []


def test_questions_and_results_that_mean_something_else_are_counted(tmp_path: Path) -> None:
    record = {
        "id": "r1",
        "fields": {"prompt": "Sky?", "answer_a": "Blue.", "answer_b": "Green.", "reference": "Blue"},
        "responses": {
            "ranking": [{"value": ["answer_a", "answer_b"], "user_id": "u"}],
            "problems": [{"value": ["too short", "rude"], "user_id": "u"}],
            "strength": [{"value": 7, "user_id": "u"}],
            "done": [{"value": True, "user_id": "u"}],
        },
    }
    [item], lost = read(tmp_path, "argilla", [record])
    assert (texts(item), item.answers[0].ranks, item.answers[0].strength) == (SKY, [1, 2], None)
    assert sorted(lost) == [
        "fields: 1 fields are neither prompt nor response, and are left out",
        "questions: 2 answers to a question say neither which is better, nor how good one is, nor why,"
        " and are left out",
        "strength: 1 strengths do not fit the ranks, and are left out",
    ]
    left = {"type": "pairwise", "value": {"selected": "left"}}
    tasks = [
        {
            "data": {"question": "Sky?", "text1": "Blue.", "text2": "Green.", "ref_id": 456},
            "annotations": [{"result": [left, {"type": "choices", "value": {"choices": ["ok"]}}]}, {"result": [left]}],
        }
    ]
    [item], lost = read(tmp_path, "label-studio", tasks)
    assert texts(item) == SKY
    assert len({answer.rater for answer in item.answers}) == 2  # nobody says who completed them
    assert lost == [
        "results: 1 results are neither pairwise, ranker, rating nor textarea, and are left out",
        "`data`: 1 values of tasks have no place in an import line",
    ]


def test_fastchat_votes_about_one_battle_are_one_item(tmp_path: Path) -> None:
    a = [ASK, BLUE, {"role": "user", "content": "Sea?"}, BLUE]
    b = [ASK, GREEN, {"role": "user", "content": "Sea?"}, GREEN]
    vote = {"question_id": 81, "model_a": "x", "model_b": "y", "conversation_a": a, "conversation_b": b}
    rows = [
        {
            **vote,
            "winner": "model_a",
            "judge": "author_2",
            "turn": 1,
            "anony": True,
            "language": "English",
            "tstamp": 1687850000.5,
        },
        {
            **vote,
            "model_a": "y",
            "model_b": "x",
            "conversation_a": b,
            "conversation_b": a,
            "turn": 1,
            "winner": "model_a",
            "judge": "expert_0",
        },
        {**vote, "winner": "tie (bothbad)", "judge": "author_2", "turn": 2},
    ]
    items, _ = read(tmp_path, "fastchat", rows)
    assert [texts(item) for item in items] == [
        SKY,
        (["user: Sky?"], ["Blue. | Sea? | Blue.", "Green. | Sea? | Green."]),
    ]
    first, swapped = items[0].answers
    assert (first.ranks, first.submitted_at, first.shown) == ([1, 2], "2023-06-27T07:13:20.500000+00:00", [0, 1])
    assert (swapped.ranks, swapped.shown) == ([2, 1], [1, 0])
    assert (items[1].answers[0].ranks, items[1].answers[0].flags) == ([1, 1], ["all-bad"])
    assert [response.model for response in items[0].responses] == ["x", "y"]
    assert len({item.id for item in items}) == 2


def test_strength_becomes_a_margin(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Sky?", "chosen": "Blue.", "rejected": "Green.", "margin": 2},
        {"prompt": "Sea?", "chosen": "Blue.", "rejected": "Green.", "margin": 0.7},
    ]
    items, lost = read(tmp_path, "openrlhf", rows)
    assert [item.answers[0].strength for item in items] == [-2, None]
    assert lost == ["`margin`: 1 margins are not 1, 2 or 3, and are left out"]


def test_the_same_rows_are_taken_once_and_zipped_files_are_read(tmp_path: Path) -> None:
    row = json.dumps({"prompt": "Sky?", "chosen": "Blue.", "rejected": "Green."}) + "\n"
    (tmp_path / "rows.gz").write_bytes(gzip.compress((row + "\n" + row).encode()))
    items, lost = read_format(tmp_path / "rows.gz", "trl")
    assert len(items) == 1
    assert lost == ["repetitions: 1 rows say what an earlier row says, and are taken once"]
