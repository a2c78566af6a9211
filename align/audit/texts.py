"""What can be seen in one text: refusals, cut-off ends, self-introductions, personal data, slurs. Patterns, no models.

Each finder is a pattern with a cheap test before it, so that hundreds of thousands of texts take seconds. They find
candidates: their precision matters more than their recall, since an audit that cries wolf is switched off.
"""

import codecs
import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

# --- refusals ---------------------------------------------------------------------------------------------------

_BEGINNING = 200  # characters in which a refusal says that it is one
_CANT = r"(?:can['’]?t|cannot|can not|won['’]t|will not)"
_SORRY = r"\bi(?:['’]m| am) (?:(?:very|so|really|truly) )?(?:sorry|afraid)[,.]? ?(?:but)?"
_HELP = (
    r"(?:help|assist|provide|answer|comply|fulfil|discuss|support|encourage|condone|engage|participate|share|"
    r"generate|create|write|recommend|offer|endorse|advise|do that|tell you|give (?:you|any))"
)
_REFUSAL = re.compile(
    "|".join(
        (
            rf"{_SORRY} i {_CANT}",
            rf"{_SORRY} i(?:['’]m| am) (?:unable|not (?:able|allowed|going|comfortable|willing))",
            rf"\bi {_CANT} (?:\w+ )?{_HELP}",
            rf"\bi(?:['’]m| am) (?:unable|not able|not going|not willing) to (?:\w+ )?{_HELP}",
            r"\bi(?:['’]m| am) not comfortable\b|\bi don['’]t feel comfortable\b|\bi must (?:decline|refuse)\b",
            rf"\bas an? (?:ai|artificial|language)[\w ]{{0,20}}, i (?:{_CANT}|don['’]t|do not|am not)",
        )
    ),
    re.IGNORECASE,
)
_HINTS = (
    " leid",
    " nicht ",
    "je ne ",
    " siento",
    "no puedo",
    "不能",
    "无法",
    "無法",
    "لا ",
    "لن ",
)  # of the other patterns
_REFUSAL_ELSEWHERE = re.compile(
    "|".join(
        (
            r"\btut mir leid, aber ich kann\b",
            r"\btut mir (?:wirklich |sehr )?leid,? (?:aber |doch )?(?:dabei |damit |das )?"
            r"(?:ich kann|kann ich) (?:\w+ ){0,3}?(?:nicht|keine?n?)\b",
            r"\b(?:da|dabei|damit) kann ich (?:dir |ihnen |euch )?(?:leider )?nicht (?:weiter)?helfen\b",
            r"\bich kann (?:dir |ihnen |euch )?(?:dabei |damit |hierbei )?(?:leider )?nicht (?:weiter)?helfen\b",
            r"\bje (?:suis (?:vraiment )?désolée?|regrette),? (?:mais )?je ne (?:peux pas|suis pas en mesure)\b",
            r"\bje ne (?:peux pas|suis pas en mesure de) (?:vous |t['’])?aider\b",
            r"\blo siento,? (?:mucho,? )?(?:pero )?no (?:puedo|me es posible)\b",
            r"\bno puedo (?:ayudar|proporcionar|cumplir)",
            r"(?:抱歉|对不起|對不起)[，,]?\s*(?:但|但是)?我?(?:不能|无法|無法)|我(?:不能|无法|無法)(?:提供|回答|协助|協助|帮助|幫助)",
            r"(?:آسفة?|عذر[اًﺍ]{1,2}|أعتذر|المعذرة)[،,.]? ?(?:و?لكن(?:ني|ي)? )?(?:لا (?:أستطيع|يمكنني|أقدر)|لن )",
            r"(?:^|[\s،.])لا (?:أستطيع|يمكنني) (?:مساعدتك|المساعدة|تقديم|الإجابة|تلبية)",
        )
    ),
    re.IGNORECASE,
)


def refuses(text: str) -> bool:
    """Whether a response declines in its first words, by its phrases.

    English, and the usual phrases of Arabic, Chinese, French, German and Spanish. It is a rule: what is declined in
    other words, or in other languages, is not found.
    """
    begins = text[:_BEGINNING]
    if _REFUSAL.search(begins) is not None:
        return True
    lower = begins.lower()
    return any(hint in lower for hint in _HINTS) and _REFUSAL_ELSEWHERE.search(begins) is not None


# --- cut off ----------------------------------------------------------------------------------------------------

_LONG = 120  # shorter texts may be titles, names, words
_SENTENCE = 40  # a last line shorter than this may be a heading, a signature, an item of a list
_GOES_ON = re.compile(r"[^\W_]$|[,(–—-]$")
_ITEM = re.compile(r"\s*(?:[-*•+>|#]|\(?\w{1,3}[.):]\s|[A-Z][\w ]{0,30}:)")


def cut_off(text: str) -> bool:
    """Whether a long text ends within a sentence, or within a block of code. Lists, headings and links may."""
    text = text.rstrip()
    if len(text) < _LONG:
        return False
    if text.count("```") % 2:
        return True
    last = text[text.rfind("\n") + 1 :]
    if len(last) < _SENTENCE or _GOES_ON.search(last) is None or _ITEM.match(last):
        return False
    word = last[last.rfind(" ") + 1 :]
    return not (len(word) > 40 or "/" in word or "@" in word)  # a link


# --- who it says it is ------------------------------------------------------------------------------------------

NAMES = (
    "ChatGPT", "GPT-3", "GPT-4", "GPT-5", "Claude", "Bard", "Gemini", "LaMDA", "PaLM", "LLaMA", "Llama", "Vicuna",
    "Qwen", "DeepSeek", "Mistral", "Mixtral", "Copilot", "Bing", "Open Assistant", "OpenAssistant", "Grok", "ERNIE",
    "Gemma", "SmolLM", "ChatGLM", "Baichuan", "InternLM", "Kimi", "StableLM", "Guanaco", "WizardLM", "OLMo",
    "通义千问", "文心一言", "豆包", "智谱清言",
)  # fmt: skip
MAKERS = (
    "OpenAI", "Anthropic", "Google", "DeepMind", "Meta AI", "Meta", "Microsoft", "Mistral AI", "Alibaba", "DeepSeek",
    "Cohere", "xAI", "Baidu", "Moonshot AI", "Hugging Face", "LAION", "01.AI", "Zhipu AI", "EleutherAI", "Databricks",
)  # fmt: skip
_NAME = rf"(?:{'|'.join(map(re.escape, NAMES))})"
_I_AM = re.compile(
    rf"(?:\b(?:[Ii] am|[Ii]['’]m|[Mm]y name is|[Cc]all me)|我是|我叫)\s*(?:an? (?:AI|large language)[\w ]{{0,30}}"
    rf"(?:called|named) )?{_NAME}(?![\w’'])(?! [A-Z][a-z])|\b[Aa]s {_NAME}, I\b"
)
_MADE_BY = re.compile(
    r"\b(?:[Ii] (?:am|was)|[Ii]['’]m|[Aa]s)\b[^.!?\n]{0,60}?\b(?:trained|developed|created|made|built|designed) by "
    rf"(?:{'|'.join(map(re.escape, MAKERS))})\b"
)


def says_it_is(text: str) -> str | None:
    """The words in which a text names the model or the maker that it claims to be; None where it does not."""
    if any(name in text for name in NAMES):
        found = _I_AM.search(text)
        if found:
            return found.group()
    if any(name in text for name in MAKERS):
        found = _MADE_BY.search(text)
        if found:
            return found.group()
    return None


# --- personal data ----------------------------------------------------------------------------------------------


class Personal(NamedTuple):
    """A candidate for personal data: what kind, and where it stands."""

    kind: str  # email, phone, card, iban, ip
    start: int
    end: int


_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])")
_NOBODYS = re.compile(  # RFC 2606, and what stands for a name in examples
    r"@(?:[\w-]+\.)*(?:example|test|invalid|localhost)(?:\.\w+)?$|^(?:your|my|user|name|email|someone|example|foo|test)[\w.]*@"
    r"|@(?:your|my|email|domain|company|website)[\w-]*\.",
    re.IGNORECASE,
)
_DIGITS = re.compile(r"(?<![\w.,:/#=+-])(?:\+|\()?\d(?:[ ().\-–]{0,2}\d){6,18}(?![\w/])(?![.,:]\d)")
_PHONE = re.compile(
    r"\+[1-9]\d{0,2}[ .-]?\(?\d{1,4}\)?(?:[ .-]?\d{2,4}){2,4}"  # +49 221 1234567
    r"|\(?[2-9]\d{2}\)?[ .-] ?[2-9]\d{2}[ .-]\d{4}"  # (212) 736-5000
    r"|0\d{2,4}[ /-]\d{3,4}[ -]?\d{3,5}"  # 0221 1234567
)
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b")
_FICTION = re.compile(r"555[ .-]?01\d\d$")  # numbers that the North American plan keeps for stories
_VERSION = re.compile(r"(?:v|ver|version|release)\.? ?$", re.IGNORECASE)
_IP = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]\w|\w)")


def personal_data(text: str) -> list[Personal]:
    """Candidates for personal data, in order: e-mail addresses, telephone numbers, card numbers (Luhn, ISO/IEC 7812),
    IBANs (ISO 7064 mod 97-10), public IP addresses. What is reserved for examples is left out.
    """
    found = []
    if "@" in text:
        for match in _EMAIL.finditer(text):
            if not _NOBODYS.search(match.group()):
                found.append(Personal("email", *match.span()))
    if not any(digit in text for digit in "0123456789"):
        return found
    rest = text  # without what is an account or an address: its digits are no telephone number
    for kind, pattern, right in (("iban", _IBAN, _iban), ("ip", _IP, _public)):
        for match in pattern.finditer(text):
            start, end = match.span()
            if right(match.group()) and not (kind == "ip" and _VERSION.search(text[max(0, start - 9) : start])):
                found.append(Personal(kind, start, end))
                rest = f"{rest[:start]}{'x' * (end - start)}{rest[end:]}"
    for match in _DIGITS.finditer(rest):
        digits = re.sub(r"\D", "", match.group())
        if len(digits) in (14, 15, 16, 19) and _card(digits):
            found.append(Personal("card", *match.span()))
        elif _PHONE.fullmatch(match.group()) and not _FICTION.search(match.group()):
            found.append(Personal("phone", *match.span()))
    return sorted(found, key=lambda one: one.start)


def _card(digits: str) -> bool:
    """Whether the last digit is right by Luhn's rule, and the first is one that card issuers have."""
    doubled = [int(digit) * 2 if place % 2 else int(digit) for place, digit in enumerate(reversed(digits))]
    return digits[0] in "3456" and len(set(digits)) > 1 and sum(value - 9 * (value > 9) for value in doubled) % 10 == 0


def _iban(text: str) -> bool:
    plain = text.replace(" ", "")
    return 15 <= len(plain) <= 34 and int("".join(str(int(sign, 36)) for sign in plain[4:] + plain[:4])) % 97 == 1


def _public(text: str) -> bool:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return address.is_global and text not in ("8.8.8.8", "8.8.4.4", "1.1.1.1") and not text.endswith(".0.0")


# --- slurs ------------------------------------------------------------------------------------------------------

# Words against groups of people, English, unambiguous ones only; ROT13, so that nobody has to read them who edits this.
_SLURS = frozenset(
    codecs.decode(
        """
        ornare ornaref puvanzna qnexvr qnexvrf snttbg snttbgf tbyyvjbt wvtnobb wvtnobbf xvxr xvxrf zbatbybvq
        zbatbybvqf avttn avttnf avttre avttref cnxv cnxvf cbepuzbaxrl enturnq enturnqf ergneq ergneqrq ergneqf
        fnaqavttre fnaqavttref furznyr furznyrf fcnm fcvp fcvpf tbbx tbbxf gbjryurnq gbjryurnqf jrgonpx jrgonpxf
        """,
        "rot13",
    ).split()
)
_WORD = re.compile(r"[A-Za-z]+")


def slurs(text: str) -> list[tuple[int, int]]:
    """Where the words of the list stand."""
    if _SLURS.isdisjoint(_WORD.findall(text.lower())):
        return []
    return [match.span() for match in _WORD.finditer(text) if match.group().lower() in _SLURS]


# --- showing a text without what it should not show -------------------------------------------------------------


def masked(text: str) -> str:
    """The text with personal data and slurs hidden but for a first letter, or the last two digits."""
    spans = [(start, end, text[start] + "•" * (end - start - 1)) for start, end in slurs(text)]
    for kind, start, end in personal_data(text):
        value = text[start:end]
        if kind == "email":
            name, _, host = value.partition("@")
            hidden = f"{name[0]}•••@•••.{host.rpartition('.')[2]}"
        else:
            hidden = re.sub(r"\w", "•", value[:-2]) + value[-2:]
        spans.append((start, end, hidden))
    parts, at = [], 0
    for start, end, hidden in sorted(spans):
        if start >= at:
            parts += [text[at:start], hidden]
            at = end
    return "".join([*parts, text[at:]])


FINDERS: dict[str, Callable[[str], object]] = {
    "refusals": refuses,
    "cut_off": cut_off,
    "identity": says_it_is,
    "personal_data": personal_data,
    "slurs": slurs,
}


def scan(texts: Iterable[str], finders: tuple[str, ...]) -> dict[str, list[int]]:
    """For each finder the numbers of the texts in which it finds something."""
    asked = [(FINDERS[name], name) for name in finders]
    hits: dict[str, list[int]] = {name: [] for name in finders}
    for number, text in enumerate(texts):
        for finder, name in asked:
            if finder(text):
                hits[name].append(number)
    return hits
