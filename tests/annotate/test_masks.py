"""Names of models are hidden in what they wrote: each form in which they name themselves, and nothing else."""

import time

import pytest

from annotate.services.masks import count_masked, mask_names, unmasked

NAMES = ["GPT-4", "Claude", "文心一言", "C++", "Яндекс", "a.b*c(", "-", " ", "Llama 3"]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("As GPT-4, I can't.", "As █████, I can't."),
        ("gpt4o-mini! GPT 4; GPT‑4 (GPT-4.1). Then", "█████! █████; █████ (█████). Then"),
        ("GPT-3 and MGPT-4", "GPT-3 and MGPT-4"),
        ("Claude's, Claudette, CLAUDE-like", "█████'s, Claudette, █████-like"),
        ("claude-3-5-sonnet-20241022", "█████"),
        ("我是GPT-4模型,不是文心一言。", "我是█████模型,不是█████。"),
        ("C++ and c++.", "█████ and █████."),
        ("Яндекс, Яндекса", "█████, Яндекса"),
        ("**GPT-4** _GPT-4_ `gpt-4`", "**█████** _█████_ `█████`"),
        ("xa.b*c( a.b*c( a-b", "xa.b*c( █████ a-b"),
        ("llama3, Llama\n3.1-8B", "█████, █████"),
    ],
)
def test_names_are_hidden(text: str, masked: str) -> None:
    assert mask_names(text, NAMES) == (masked, masked.count("█████"))


def test_no_names_hide_nothing() -> None:
    assert mask_names("GPT-4 - x", []) == mask_names("GPT-4 - x", ["-", ""]) == ("GPT-4 - x", 0)


def test_what_is_shown_of_a_reply_is_what_is_kept_of_it() -> None:
    """Names longer and shorter than the bar; none of them is cut, so that all are hidden again."""
    names = ["o1", "Mistral Large", "GPT-4"]
    text = "o1 o1 o1 o1 o1 o1 I am Mistral Large and gpt-4o-mini-2024 is not me, good to know."
    masked = mask_names(text, names)[0]
    for length in range(len(masked) + 1):
        kept = mask_names(unmasked(text, names, length), names)[0]
        assert masked.startswith(kept) and kept[:length] == masked[:length] and kept[length:].strip("█") == ""
    assert unmasked(text, [], 7) == text[:7]


def test_responses_and_items_with_a_name_are_counted() -> None:
    named, plain = [{"role": "assistant", "content": "I am gpt4."}], [{"role": "assistant", "content": "I am."}]
    assert count_masked([[named, plain], [named, named], [plain]], NAMES) == {"responses": 3, "items": 2}
    assert count_masked([[named]], []) == {"responses": 0, "items": 0}


@pytest.mark.parametrize(
    "text", ["GPT-4" * 100_000, "GPT-" + "4" * 500_000, "a-1" + "-a" * 250_000, "gpt " * 125_000, "g" * 500_000]
)
def test_no_text_takes_long(text: str) -> None:
    began = time.process_time()
    mask_names(text, [*NAMES, "a-1", *(f"model-{number}" for number in range(100))])
    assert time.process_time() - began < 1
