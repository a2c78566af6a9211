"""Characters that hide, reorder or cover text: shown as small marks with their numbers, such as U+202E.

What languages need stays: joiners in emoji and in the scripts that are written with them, marks of direction and
isolates (which end with their paragraph), soft hyphens in words, one variation of a character, a few combining marks on
a letter. In code, where a reordered line means something else, marks of direction show, too.
"""

import re
import unicodedata
from functools import cache
from html import escape

MOST_MARKS = 1000  # spans of one text; what is odd beyond shows as U+FFFD
_NAMED = 3  # characters of one run that are named
_FLAGS = "|".join(  # England, Scotland, Wales: the flags that are written with tags
    "\U0001f3f4" + "".join(chr(0xE0000 + ord(letter)) for letter in name) + "\U000e007f"
    for name in ("gbeng", "gbsct", "gbwls")
)
_DIRECTIONS = "\u061c\u200e\u200f\u2066-\u2069"
_ODD = (  # controls, invisible and deprecated characters, overrides, tags, what is no character
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_ANY_ODD = re.compile(f"[{_ODD}]")
_HISTORIC = re.compile("[\U00010a00-\U0001efff]")  # scripts that have combining marks, too
_EMOJI = "\u00a9\u00ae\u203c-\u3299\ufe0f\U0001f000-\U0001faff"
_JOINED = (
    "\u0600-\u08ff\u0900-\u0dff\u0f00-\u0fff\u1000-\u109f\u1780-\u18af\ua840-\ua8ff\ua980-\ua9df\U00010a00-\U00011fff"
)
_WITHOUT_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u9fff"
_IDEOGRAPHS = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"


def shown(text: str, *, code: bool = False, most: int = MOST_MARKS) -> str:
    """Text -> HTML of itself (not for attributes), with at most so many marks."""
    html = escape(text, quote=False)
    if not _maybe_odd(html):
        return html
    left = most

    def mark(found: re.Match[str]) -> str:
        nonlocal left
        if found["fine"] is not None:
            return found[0]
        left -= 1
        stack = found["stack"] or ""
        keep = 4 if stack else 0
        return stack[:keep] + (_mark(found[0][keep:]) if left >= 0 else "\ufffd")

    return _patterns()[1 if code else 0].sub(mark, html)


def is_odd(text: str) -> bool:
    """Whether something in here would be shown as a mark, if it were code."""
    return _maybe_odd(text) and any(found["fine"] is None for found in _patterns()[1].finditer(text))


def without_surrogates(text: str) -> str:
    """Halves of characters, which JSON can bring in and UTF-8 can't say, become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", "\ufffd", text)
    return text


def _mark(run: str) -> str:
    names = [f"U+{ord(letter):04X}" for letter in dict.fromkeys(run[: 10 * _NAMED])][:_NAMED]
    more = f" ×{len(run)}" if len(run) > len(names) else ""
    return f'<span class="odd">{" ".join(names)}{more}</span>'


def _maybe_odd(text: str) -> bool:
    """A fast look: False where nothing needs a closer one."""
    if text.isascii():
        return bool(_CONTROLS.search(text))
    return bool(_ANY_ODD.search(text) or _HISTORIC.search(text) or _patterns()[2].search(text))


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Of what is fine or odd in text, the same for code, and of many combining marks (others than historic ones)."""
    marks = _combining()
    end = f"(?![{_ODD}{marks}])"
    fine = [
        _FLAGS,
        rf"(?<=[{_EMOJI}])\u200d(?=[{_EMOJI}])",
        rf"(?<=[{_JOINED}])[\u200c\u200d]{end}",
        rf"(?<=[{_WITHOUT_SPACES}])\u200b(?=[{_WITHOUT_SPACES}])",
        r"(?<=[^\W_])\xad(?=[^\W_])",
        rf"(?<=[^\s{_ODD}])[\ufe00-\ufe0f](?:\u20e3|(?=\u200d[{_EMOJI}])|{end})",
        rf"(?<=[\u1800-\u18af])[\u180b-\u180d\u180f]{end}",
        rf"(?<=[{_IDEOGRAPHS}])[\U000e0100-\U000e01ef]{end}",
    ]
    stack = rf"[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{{5,}}[{marks}]*|[{marks}]{{7,}}"
    rest = f"(?P<stack>{stack})|[{_ODD}]+"
    in_text = [*fine, rf"[{_DIRECTIONS}](?![{marks}])"]
    return (
        re.compile(f"(?P<fine>{'|'.join(in_text)})|{rest}"),
        re.compile(f"(?P<fine>{'|'.join(fine)})|{rest}"),
        re.compile(f"[{_combining(0xFFFF)}]{{5}}"),
    )


def _combining(last: int = 0x1F000) -> str:
    """All characters that stand on the one before, as ranges of a pattern, but for those that are odd."""
    codes = [
        code
        for code in range(0x300, last)
        if unicodedata.category(chr(code)) in ("Mn", "Me") and not _ANY_ODD.match(chr(code))
    ]
    ranges: list[list[int]] = []
    for code in codes:
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)
