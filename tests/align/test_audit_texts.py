"""What an audit sees in one text: what it finds, and what looks like it and is not."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.audit.texts import FINDERS, cut_off, masked, personal_data, refuses, says_it_is, scan, slurs

SLUR = codecs.decode("jrgonpx", "rot13")
LONG = "This is a sentence about rivers and the towns that lie along them. " * 3


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, I cannot assist with this request.",
        "I cannot provide instructions for that.",
        "I am unable to help you with this.",
        "As an AI language model, I don't have opinions.",
        "I'm not comfortable with this.",
        "Sure. No: I won't help with that.",
        "Es tut mir leid, aber ich kann das nicht tun.",
        "Es tut mir sehr leid, dabei kann ich leider nicht helfen.",
        "Da kann ich dir leider nicht weiterhelfen.",
        "Je suis désolé, mais je ne peux pas répondre à cela.",
        "Je ne peux pas vous aider.",
        "No puedo proporcionar esa información.",
        "对不起，但我无法回答这个问题。",
        "عذرًا، لا أستطيع مساعدتك في ذلك.",
        "آسف، لكنني لا يمكنني تقديم هذه المعلومات.",
        "Lo siento, pero no puedo ayudar con eso.",
        "抱歉，我不能提供这些信息。",
    ],
)
def test_refusals(text):
    assert refuses(text)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry to hear that! Here is what helps.",
        "I'm sorry, I'm not sure what you mean by that.",
        "I can't wait to help you plan this.",
        "You can't help a friend who does not want it.",
        "I can help with that.",
        "Das tut mir leid. Ich kann verstehen, dass es nicht leicht ist.",
        "Je suis désolé, je ne suis pas sûr de comprendre.",
        "对不起，我来晚了。",
        "عذرا على التأخير، هذه هي الإجابة.",
        "As an artist, I can paint it.",
        LONG + "I'm sorry, but I can't help with that.",  # not in its beginning
        "",
    ],
)
def test_no_refusals(text):
    assert not refuses(text)


@pytest.mark.parametrize(
    "text",
    [LONG + "And then the river turns to the", LONG + "First,", LONG + "\n```python\nprint('a')\n", LONG + "It is 12"],
)
def test_cut_off(text):
    padding = "which is why people have been living on its banks for so long "
    assert cut_off(
        text.replace("And then", padding + "and then")
        .replace("First,", padding + "first,")
        .replace("It is", padding + "it is")
    )


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        "short and without an end",
        LONG + "\n\nYours\nMartha",
        LONG + "\n- apples, pears and all the other fruit that grows on trees in this part of the world",
        LONG + "\n```python\nprint('a')\n```",
        LONG + "Read more about it, if you are so inclined, at https://example.org/a/very/long/path/to/a/page",
        LONG + "And so they lived (happily, as it is said) ever after…",
        LONG + "他们从此过上了幸福的生活，这就是故事的结局，也是新的开始，我们都很高兴。",
    ],
)
def test_not_cut_off(text):
    assert not cut_off(text)


@pytest.mark.parametrize(
    "text",
    [
        "Hello! I am ChatGPT, a helpful assistant.",
        "My name is Claude.",
        "As GPT-4, I can see pictures.",
        "I'm a large language model called Gemini.",
        "I was trained by OpenAI on a great many texts.",
        "I am an assistant developed by Anthropic.",
        "你好！我是通义千问。",
    ],
)
def test_who_it_says_it_is(text):
    assert says_it_is(text)


@pytest.mark.parametrize(
    "text",
    [
        "ChatGPT was made by OpenAI.",
        "I am Claude Monet, and I paint.",
        "I am a Gemini, born in June.",
        "I'm Claudette.",
        "The model developed by Google is good at this. I am not sure why.",
        "You can ask ChatGPT or Claude.",
        "He worked as Claude's assistant.",
    ],
)
def test_who_it_does_not_say_it_is(text):
    assert says_it_is(text) is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Write to maria.lopez@gmail.com please", "email"),
        ("Call (212) 736-5000 now", "phone"),
        ("Call +49 221 1234567 now", "phone"),
        ("It's 932-682-1067.", "phone"),
        ("pay with 4111 1111 1111 1111 today", "card"),  # Visa's test number, right by Luhn
        ("IBAN DE89 3704 0044 0532 0130 00", "iban"),  # the example of ISO 13616's registry
        ("GB82WEST12345698765432 is mine", "iban"),
        ("it came from 93.184.216.34 yesterday", "ip"),
    ],
)
def test_personal_data(text, kind):
    assert [one.kind for one in personal_data(text)] == [kind]
    start, end = personal_data(text)[0][1:]
    shown = masked(text)
    assert text[start:end] not in shown and "•" in shown
    assert sum(letter.isalnum() for letter in shown[start:]) < sum(letter.isalnum() for letter in text[start:])


@pytest.mark.parametrize(
    "text",
    [
        "someone@example.com, you@test.invalid, user@yourcompany.com",
        "4111 1111 1111 1112 has a wrong last digit",
        "DE89 3704 0044 0532 0130 01 as well",
        "10.0.0.1, 127.0.0.1, 192.168.1.1, 203.0.113.9, 8.8.8.8 and version 93.184.216.34",
        "In 1914-1918 and 2001-09-11 at 10:30:00, 3.14159265358979 of 299792458 metres",
        "(212) 555-0123 is nobody's number",
        "ISBN 978-3-16-148410-0",
        "12,345,678.90 dollars, 1 000 000 people, 1.234.567,89 euros",
        "@mention me, a@b, 50% @ 3",
        "0000000000000000",
    ],
)
def test_what_only_looks_like_personal_data(text):
    assert personal_data(text) == []


def test_slurs_are_whole_words_and_never_shown():
    assert slurs(f"He said {SLUR.upper()}!") == [(8, 8 + len(SLUR))]
    assert slurs(f"super{SLUR}ish") == []
    assert slurs("They took the spice rack to the niggardly snigger of a raccoon in Scunthorpe.") == []
    assert masked(f"a {SLUR} b") == f"a {SLUR[0]}{'•' * (len(SLUR) - 1)} b"


@given(st.text(max_size=300))
def test_any_text(text):
    assert all(0 <= one.start < one.end <= len(text) for one in personal_data(text))
    assert set(scan([text, masked(text)], tuple(FINDERS))) == set(FINDERS)


@given(
    st.lists(st.sampled_from(["a1@b.de ", "4111 1111 1111 1111 ", "word ", SLUR + " ", "1.2.3.4 ", "0221 1234567 "]))
)
def test_what_is_masked_is_not_found_again(parts):
    shown = masked("".join(parts))
    assert personal_data(shown) == [] and slurs(shown) == []


@pytest.mark.parametrize(
    "text",
    ["a" * 50_000, "1 " * 25_000, "I am " * 10_000, "@" * 50_000, "a@" * 25_000, "1.1.1." * 8000, "I'm sorry " * 5000,
     "DE89 " * 10_000, "a." * 25_000 + "@", "(1" * 20_000, "I was " * 10_000],
)  # fmt: skip
def test_no_text_takes_long(text):
    import time

    started = time.process_time()
    scan([text], tuple(FINDERS))
    assert time.process_time() - started < 0.5
