"""The words of the server in a person's language: of its messages, and of the pages that it writes itself.

annotate/languages/ has a file for each language but English: {English sentence: the same in that language}. A sentence
may have places for values: {name}. What a file lacks stays English. Under "English" stands the language's own name.
"""

import json
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path

from starlette.requests import HTTPConnection
from starlette.responses import Response

LANGUAGES = Path(__file__).parent.parent / "languages"
COOKIE = "concord_language"
COOKIE_SECONDS = 365 * 24 * 3600
ENGLISH = "en"
LONGEST = 500  # characters of a message that is looked up: in longer ones, places could be tried for seconds
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


def later(sentence: str) -> str:
    """Marks a sentence that is translated where it is shown, for who looks for all that there is to translate."""
    return sentence


def say(language: str, sentence: str, **values: object) -> str:
    """A sentence of the code in a language, with its values put in."""
    return put(sentences(language).get(sentence) or sentence, values)


def put(sentence: str, values: Mapping[str, object]) -> str:
    """A sentence with its values at their places; a place without a value stays as it is."""
    return _PLACE.sub(lambda place: str(values.get(place[1], place[0])), sentence)


def language_of(request: HTTPConnection) -> str:
    """The language of whoever asks: what was chosen in this browser, else the first of the browser's own that we have.

    Somebody who says neither, such as a script, hears English.
    """
    return chosen(request.cookies.get(COOKIE), request.headers.get("accept-language", ""))


def chosen(cookie: str | None, accepted: str) -> str:
    """As `language_of`, from the cookie and the header Accept-Language."""
    return cookie if cookie is not None and cookie in languages() else _best(accepted[:200])


def remember(response: Response, language: str, request: HTTPConnection) -> None:
    """Let this browser keep the language. Scripts of the pages read the cookie, so that it is not HttpOnly."""
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, language, max_age=COOKIE_SECONDS, samesite="lax", secure=secure)


def translated(language: str, told: str) -> str:
    """A sentence that was made elsewhere, with its values in it; as it is if the language file has nothing like it."""
    if language == ENGLISH or len(told) > LONGEST:
        return told
    known = sentences(language)
    for form in (told, _begun(told)):
        if form in known:
            return known[form]
    return _by_pattern(language, told)


@lru_cache(maxsize=64)
def _best(accepted: str) -> str:
    """The language of an Accept-Language header that there is here and that has the highest weight."""
    best, found = 0.0, ENGLISH
    for part in accepted.split(","):
        tag, _, weight = part.partition(";")
        code = tag.strip().lower().split("-")[0]
        number = re.fullmatch(r"\s*q=([01](?:\.\d{0,3})?)\s*", weight) if weight else None
        share = float(number[1]) if number else float(not weight)
        if code in languages() and share > best:
            best, found = share, code
    return found


@lru_cache(maxsize=1024)
def _by_pattern(language: str, told: str) -> str:
    """As `translated`, for sentences with values in them. A value that the file knows is translated, too."""
    known = sentences(language)
    for pattern, sentence in _patterns(language):
        if found := pattern.fullmatch(told) or pattern.fullmatch(_begun(told)):
            values = {name: known.get(value, value) for name, value in found.groupdict().items()}
            return put(sentence, values)
    return told


@cache
def _patterns(language: str) -> list[tuple[re.Pattern[str], str]]:
    """The sentences of a file that have places, as patterns, those first that say most in words of their own."""
    words = {key: len(_PLACE.sub("", key)) for key in sentences(language) if _PLACE.search(key)}
    keys = sorted(words, key=lambda key: -words[key])
    return [(_pattern(key), sentences(language)[key]) for key in keys if words[key] >= 12]  # shorter ones fit anything


def _pattern(key: str) -> re.Pattern[str]:
    made = ""
    for index, part in enumerate(_PLACE.split(key)):
        if index % 2:
            made += f"(?P={part})" if f"(?P<{part}>" in made else f"(?P<{part}>.+?)"
        else:
            made += re.escape(part)
    return re.compile(made, re.DOTALL)


def _begun(told: str) -> str:
    """With a capital letter: some sentences are written to follow "error:"."""
    return told[:1].upper() + told[1:]
