"""The words of the server in a person's language: of its messages, and of the pages that it writes itself.

annotate/languages/ has a file for each language but English: {English sentence: the same in that language}. A sentence may
have places for values, {name}. What a file lacks stays English. Under "English" a file says what its language calls itself.
"""

import json
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path

LANGUAGES = Path(__file__).parent.parent / "languages"
COOKIE = "concord_language"
ENGLISH = "en"
LONGEST = 2000  # characters of a message that is looked for
RIGHT_TO_LEFT = {"ar", "dv", "fa", "he", "ps", "ur", "yi"}
_PLACE = re.compile(r"\{(\w+)\}")


@cache
def languages() -> dict[str, str]:
    """The languages that there are: code -> its own name, English first."""
    codes = sorted(file.stem for file in LANGUAGES.glob("*.json"))
    return {ENGLISH: "English"} | {code: sentences(code).get("English", code) for code in codes}


@cache
def sentences(language: str) -> dict[str, str]:
    """All that a language file says; nothing for English, and for a language that has no file."""
    file = LANGUAGES / f"{language}.json"
    return json.loads(file.read_text(encoding="utf-8")) if language != ENGLISH and file.is_file() else {}


def direction(language: str) -> str:
    return "rtl" if language in RIGHT_TO_LEFT else "ltr"


def say(language: str, sentence: str, **values: object) -> str:
    """A sentence of the code in a language, with its values put in."""
    return _PLACE.sub(lambda place: str(values.get(place[1], place[0])), sentences(language).get(sentence, sentence))


def chosen_language(cookies: Mapping[str, str], accepted: str | None) -> str:
    """The language of whoever asks: what was chosen in this browser, else the first that the browser wants and we have.

    `accepted` is an Accept-Language header. Somebody who says nothing, such as a script, hears English.
    """
    if cookies.get(COOKIE) in languages():
        return cookies[COOKIE]
    return _best(accepted) if accepted else ENGLISH


def translated(language: str, told: str) -> str:
    """A sentence that was made elsewhere, with its values in it, in a language; as it is if the file has nothing like it."""
    if language == ENGLISH or not told or len(told) > LONGEST:
        return told
    known = sentences(language)
    for form in (told, told[:1].upper() + told[1:]):
        if form in known:
            return known[form]
    return _by_pattern(language, told)


@lru_cache(maxsize=64)
def _best(accepted: str) -> str:
    """The language of an Accept-Language header that there is and that has the highest weight."""
    found: list[tuple[float, str]] = []
    for part in accepted[:200].split(","):
        tag, _, weight = part.partition(";")
        code = tag.strip().lower().split("-")[0]
        number = re.fullmatch(r"\s*q=([01](?:\.\d{0,3})?)\s*", weight)
        if code in languages() and (number or not weight):
            found.append((float(number[1]) if number else 1.0, code))
    weight, code = max(found, key=lambda one: one[0], default=(0.0, ENGLISH))
    return code if weight > 0 else ENGLISH


@lru_cache(maxsize=1024)
def _by_pattern(language: str, told: str) -> str:
    """As `translated`, for sentences with values in them. A value that is itself a sentence of the file is translated."""
    for form in (told, told[:1].upper() + told[1:]):
        for pattern, sentence in _patterns(language):
            if found := pattern.fullmatch(form):
                known = sentences(language)
                return _PLACE.sub(lambda place: known.get(found[place[1]], found[place[1]]), sentence)  # noqa: B023
    return told


@cache
def _patterns(language: str) -> list[tuple[re.Pattern[str], str]]:
    """The sentences of a language file that have places, as patterns; those that say most in words of their own first."""
    with_places = [(key, said) for key, said in sentences(language).items() if _PLACE.search(key)]
    with_places.sort(key=lambda one: -len(_PLACE.sub("", one[0])))
    return [(_pattern(key), said) for key, said in with_places if len(_PLACE.sub("", key)) >= 12]


def _pattern(key: str) -> re.Pattern[str]:
    made = ""
    for index, part in enumerate(_PLACE.split(key)):
        if index % 2:
            made += f"(?P={part})" if f"(?P<{part}>" in made else f"(?P<{part}>.+?)"
        else:
            made += re.escape(part)
    return re.compile(made, re.DOTALL)
