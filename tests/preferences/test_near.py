"""Near duplicates: what is returned is exactly that similar, what is similar is found, and the same everywhere."""

import hashlib
import random
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preferences.near import THRESHOLD, _rows, _signatures, groups, near, normalised, similarity

WORDS = ["river", "comet", "stone", "window", "garden", "engine", "paper", "winter", "music", "bridge", "letter", "tea"]


def shingles(text: str) -> set[str]:
    """As the docstring says, in as few words as possible; for texts of plain Latin letters."""
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return {text[start : start + 5] for start in range(max(1, len(text) - 4))}


def jaccard(one: str, other: str) -> float:
    return len(shingles(one) & shingles(other)) / len(shingles(one) | shingles(other))


@st.composite
def corpora(draw):
    """Texts of a few words each, and copies of them with words taken out, put in, or turned round."""
    words = st.sampled_from(["river", "comet", "the", "a", "of", "ice", "and", "dust", "Sun", "grows", "tail", "é"])
    texts = draw(st.lists(st.lists(words, max_size=40), min_size=1, max_size=6))
    for _ in range(draw(st.integers(0, 8))):
        copy = list(draw(st.sampled_from(texts)))
        for _ in range(draw(st.integers(0, 2))):
            place = draw(st.integers(0, len(copy)))
            copy[place : place + draw(st.integers(0, 1))] = draw(st.lists(words, max_size=1))
        texts.append(copy)
    return [" ".join(text) for text in texts]


@settings(max_examples=150, deadline=None)
@given(corpora(), st.sampled_from([0.5, 0.8, 0.9]))
def test_what_is_returned_is_exactly_so_similar_and_what_is_more_similar_is_found(texts, threshold):
    found = near(texts, threshold)
    for one, other, alike in found:
        assert one < other
        assert alike == pytest.approx(jaccard(texts[one], texts[other]), abs=1e-12) and alike >= threshold
    same = groups(len(texts), found)
    for other in range(len(texts)):
        for one in range(other):
            if jaccard(texts[one], texts[other]) >= (threshold + 1) / 2:  # a pair at the threshold may be missed
                assert same[one] == same[other]


def test_pairs_at_the_threshold_are_missed_about_as_often_as_said():
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(4000)]
    texts = []
    for _ in range(600):
        text = chance.choices(words, k=60)
        copy = list(text)
        for place in chance.sample(range(60), 4):  # 4 words of 7 characters each are 11 shingles of about 415
            copy[place] = chance.choice(words)
        texts += [" ".join(text), " ".join(copy)]
    alike = [jaccard(texts[n], texts[n + 1]) for n in range(0, 1200, 2)]
    due = {(2 * n, 2 * n + 1) for n, share in enumerate(alike) if share >= THRESHOLD}
    found = {(one, other) for one, other, _ in near(texts)}
    assert len(due) > 300 and found <= due
    assert len(due - found) <= 0.01 * len(due)


def test_estimates_are_unbiased():
    chance = random.Random(2)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(9000)]
    exact, estimated = [], []
    for kept in range(20, 100, 2):
        text = chance.choices(words, k=100)
        copy = [*text[:kept], *chance.choices(words, k=100 - kept)]
        one, other = _signatures([" ".join(text), " ".join(copy)])
        exact.append(jaccard(" ".join(text), " ".join(copy)))
        estimated.append((one == other).mean())
    errors = np.subtract(estimated, exact)
    assert abs(errors.mean()) < 0.02 and errors.std() < 0.045  # 0.044 is the standard deviation at 0.5


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 2+3?", "What is 2+4?"),
        (
            "Explain step by step how you would work out the following sum: 2+3",
            "Explain step by step how you would work out the following sum: 2+4",
        ),
        ("Name a river.", "Name a city."),
        ("What is the capital of France?", "What is the capital of Spain?"),
        ("请用中文介绍一下北京的历史和文化。", "请用中文介绍一下上海的历史和文化。"),
        ("", "a"),
        ("Hi", "Hello"),
    ],
)
def test_other_questions(one, other):
    assert near([one, other]) == []
    assert similarity(one, other) < THRESHOLD


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is a comet?", "what  is a\nCOMET?"),
        ("What is a comet?", "What is a comet"),
        ("Ｗｈａｔ is a comet?", "What is a comet?"),
        ("Please tell me what I should cook for dinner tonight.", "Tell me what I should cook for dinner tonight."),
        ("def area(r):\n    return 3.14 * r * r\n", "def area(r):\n\treturn 3.14 * r * r"),
        ("请用中文详细介绍一下北京这座城市的历史和文化", "请用中文详细介绍一下北京这座城市的历史和文化。"),
        ("", ""),
    ],
)
def test_the_same_question(one, other):
    assert [(pair.first, pair.second) for pair in near([one, other])] == [(0, 1)]


def test_three_characters_where_words_are_not_spaced():
    one, other = "床前明月光疑是地上霜", "床前明月光疑是地下霜"
    # 8 shingles each, and the one other sign is in 3, 2 of which begin before the last: 6 common of 10
    assert similarity(one, other) == pytest.approx(6 / 10)


def test_a_large_family_comes_out_as_one_group():
    family = [f"Tell me a long story about the king of the hills and his horse {'o' * n}" for n in range(4)] * 60
    texts = [f"{text} {'abcdefghij'[n % 10]}" for n, text in enumerate(family)]
    others = [" ".join(random.Random(n).choices(WORDS, k=12)) for n in range(300)]
    assert set(groups(540, near([*texts, *others]))[:240]) == {0}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=6))
def test_any_text(texts):
    for one, other, alike in near([*texts, *texts]):
        assert 0 <= one < other < 2 * len(texts) and alike >= THRESHOLD
    assert {(n, n + len(texts)) for n in range(len(texts))} <= {
        (one, other) for one, other in [*((p.first, p.second) for p in near([*texts, *texts])), *_second_hand(texts)]
    }


def _second_hand(texts):
    """Of equal texts only the first is compared with others."""
    first = {}
    for number, text in enumerate(texts):
        if first.setdefault(normalised(text), number) != number:
            yield number, number + len(texts)


def test_half_characters_and_nothing():
    assert near([]) == []
    assert [(p.first, p.second) for p in near(["\ud800 is half a character", "\ud800 is half a character "])] == [
        (0, 1)
    ]
    with pytest.raises(ValueError, match="above 0"):
        near(["a", "b"], 0)


def test_what_most_texts_share_makes_no_two_of_them_alike():
    template = (
        "You are given a question of a customer of our shop, who may be in a hurry. Think about it step by step,"
        " name the page of the handbook that you took it from, and end with the answer in one sentence. Never promise a"
        " date, and stay polite whatever was asked. The question is: "
    )
    chance = random.Random(3)
    asked = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz ", k=30)) for _ in range(80)]
    texts = [template + question for question in asked]
    assert near(texts[:2]) and near(texts) == []  # two texts have no template; eighty do
    copy = template + asked[7] + "!"
    assert [(pair.first, pair.second) for pair in near([*texts, copy])] == [(7, 80)]
    assert near([*texts, template]) == []  # the template alone is a text like others


def test_the_same_on_every_machine_and_in_every_version():
    texts = ["What is a comet?", "什么是彗星?", "def f(x):\n    return x + 1", "", "Grüße aus Köln, 2024", "x" * 5000]
    digest = hashlib.sha256(_signatures([normalised(text) for text in texts]).astype("<u4").tobytes()).hexdigest()
    assert digest == "34d1573774c2e0cba4c3e29f51aa3f4d97e63c0c077916eee909e80e15a71b6b"


def test_bands():
    assert _rows(0.8) == 6 and _rows(1.0) == 127
    assert 1 - (1 - 0.8**6) ** 21 > 0.995 > 1 - (1 - 0.8**7) ** 18
