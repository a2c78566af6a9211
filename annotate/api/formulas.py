r"""LaTeX in texts, between $…$, $$…$$, \(…\) and \[…\], as MathML that can do nothing and cover nothing.

latex2mathml reads the formula. Of what it makes, only elements and values that are listed here are written: no links,
no styles, no colours, no sizes but its own few, nothing that moves or hides its neighbours. A formula that it can't
read, or that is long or deep, or that defines commands, stays as it was written.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from html import escape, unescape
from typing import Any
from xml.etree.ElementTree import Element

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from annotate.api.characters import is_odd, shown

LONGEST = 2000  # characters of one formula
MOST = 20_000  # characters of all formulas of one text; those after them stay as they were written
_DEEPEST = 50
_CLOSERS = {"$$": "$$", r"\(": r"\)", r"\[": r"\]"}
# A dollar that opens has no letter or digit before and no space after it, one that closes the other way round, so that
# "costs $5 and $10" is no formula.
_DOLLARS = re.compile(rf"\$(?![\s$])((?:[^$\\]|\\.){{1,{LONGEST}}}+)(?<!\s)\$(?![0-9A-Za-z$])", re.DOTALL)

_SWITCH = {"true", "false"}
_SIZES = {"1.2em", "1.623em", "2.047em", "2.470em"}
_WIDTHS = {"0.167em", "0.222em", "0.278em", "0.333em", "0.5em", "1em", "2em"}
_FONTS = {"normal", "bold", "italic", "bold-italic", "monospace", "sans-serif"}
_STRIKES = {"updiagonalstrike", "downdiagonalstrike", "horizontalstrike", "updiagonalstrike downdiagonalstrike"}
ATTRIBUTES: dict[str, dict[str, set[str]]] = {
    "math": {"display": {"block"}},
    "mi": {"mathvariant": _FONTS},
    "mn": {"mathvariant": _FONTS},
    "mtext": {"mathvariant": _FONTS},
    "mo": {
        **{name: _SWITCH for name in ("stretchy", "fence", "separator", "accent", "movablelimits")},
        "form": {"prefix", "infix", "postfix"},
        "minsize": _SIZES,
        "maxsize": _SIZES,
    },
    "mspace": {"width": _WIDTHS},
    "mfrac": {"linethickness": {"0"}},
    "mstyle": {"displaystyle": _SWITCH, "scriptlevel": {"0", "1", "2"}},
    "mover": {"accent": _SWITCH},
    "mtable": {"displaystyle": _SWITCH},
    "mtd": {"columnalign": {"left", "center", "right"}},
    "menclose": {"notation": {"box", *_STRIKES}},
}
TAGS = {
    *ATTRIBUTES,
    *("mrow", "msqrt", "mroot", "msub", "msup", "msubsup", "munder", "munderover", "mtr", "mphantom"),
}
_CHILDREN = {"mfrac": 2, "mroot": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "msubsup": 3, "munderover": 3}
_SPACES = {"thinmathspace": "0.167em", "mediummathspace": "0.222em", "thickmathspace": "0.278em"}
_LETTERLIKE = "∂∇∞∅∀∃∄ℵ"  # symbols that stand for something, and want no space around them as operators do

# What is written for environments that latex2mathml doesn't know, or would number.
_ENVIRONMENTS = {
    **dict.fromkeys(("align", "aligned", "alignat*", "eqnarray", "eqnarray*", "flalign", "flalign*"), "align*"),
    **dict.fromkeys(("gather", "gather*", "gathered", "multline", "multline*"), "matrix"),
    **{"dcases": "cases", "equation": "", "equation*": "", "math": "", "displaymath": ""},
}
_ENVIRONMENT = re.compile(r"\\(begin|end)\s*\{([A-Za-z]{1,20}\*?)\}")
_NO_MATTER = re.compile(r"\\(?:label)\s*\{[^{}]{0,100}\}|\\(?:nonumber|notag)\b|(?<=\\\\)\[-?[\d.]{1,6}\s*[a-z]{2}\]")
_DEFINES = re.compile(
    r"\\(?:[egx]?def|let|futurelet|(?:re|provide)?(?:new)?command|(?:re)?newenvironment|DeclareMath\w*)(?![a-z])"
)
_COMMAND = re.compile(r"\\[A-Za-z]")
_PLAIN_LETTER = re.compile(r"&#x0*(?:4[1-9a-f]|5[0-9a]|6[1-9a-f]|7[0-9a]);", re.IGNORECASE)


class _Unreadable(Exception):
    """A formula that is shown as it was written."""


def formulas_plugin(md: MarkdownIt) -> None:
    """Reads formulas in Markdown."""
    md.inline.ruler.before("escape", "formula", _inline)
    block = {"alt": ["paragraph", "reference", "blockquote", "list"]}
    md.block.ruler.before("fence", "formula_block", _block, block)  # type: ignore[arg-type]
    md.add_render_rule("formula", _render)
    md.add_render_rule("formula_block", _render)


def to_mathml(source: str, *, block: bool) -> str | None:
    """LaTeX -> MathML, or None where it can't be read or would cost too much."""
    from latex2mathml.converter import Converter  # reads a table of symbols, which takes a while

    if len(source) > LONGEST or _DEFINES.search(source) or is_odd(source):
        return None
    try:
        made = Converter(display="block" if block else "inline").convert_to_element(_readable(source))
        parts = list(_written(made, 0))
    except (_Unreadable, Exception):  # its own errors, and those of Python where a formula breaks off
        return None
    display = ' display="block"' if block else ""
    return f'<math{display} alttext="{escape(source)}">{"".join(parts)}</math>'


def _readable(source: str) -> str:
    def environment(found: re.Match[str]) -> str:
        known = _ENVIRONMENTS.get(found[2], found[2])
        return f"\\{found[1]}{{{known}}}" if known else ""

    source = _ENVIRONMENT.sub(environment, _NO_MATTER.sub("", source))
    if r"\\" in source and r"\begin" not in source:  # lines outside of any environment
        source = rf"\begin{{matrix}}{source}\end{{matrix}}"
    return source.strip()


def _written(element: Element, depth: int) -> Iterator[str]:
    """The children of an element as MathML, in pieces."""
    if depth > _DEEPEST:
        raise _Unreadable
    for child in element:
        tag, text = child.tag, _text(child)
        if (_COMMAND.match(text) and tag != "mtext") or len(child) != _CHILDREN.get(tag, len(child)):
            raise _Unreadable  # a command that latex2mathml doesn't know, or a part that is missing
        attributes = {
            name: value for name, value in child.attrib.items() if value in ATTRIBUTES.get(tag, {}).get(name, ())
        }
        if tag == "mi":
            if _PLAIN_LETTER.fullmatch(child.text or ""):
                attributes["mathvariant"] = "normal"
            elif len(text) == 1 and unicodedata.category(text) == "Sm" and text not in _LETTERLIKE:
                tag = "mo"
        elif tag == "mspace":
            attributes = _space(child.attrib.get("width", ""))
        elif tag not in TAGS or tag == "math":
            tag = "mrow"
        written = "".join(f' {name}="{value}"' for name, value in attributes.items())
        yield f"<{tag}{written}>{escape(text)}"
        yield from _written(child, depth + 1)
        yield f"</{tag}>"


def _text(element: Element) -> str:
    text = unescape((element.text or "").strip("\n"))
    if is_odd(text):  # as \unicode makes them
        raise _Unreadable
    return text


def _space(width: str) -> dict[str, str]:
    width = _SPACES.get(width, width)
    if width in _WIDTHS:
        return {"width": width}
    return {"width": "1em"} if re.match(r"[1-9]", width) else {}


def _inline(state: StateInline, silent: bool) -> bool:
    start, opener = state.pos, state.src[state.pos : state.pos + 2]
    if opener in _CLOSERS:
        end = state.src.find(_CLOSERS[opener], start + 2, min(state.posMax, start + 2 + LONGEST))
        source, after = state.src[start + 2 : max(end, 0)], end + 2
        link = opener == r"\[" and state.src.startswith("(", after)  # \[so\](is) a link written out
        if end < 0 or opener in source or source.endswith("\\") or link or state.src.startswith("$", after):
            return False
    else:
        found = _DOLLARS.match(state.src, start, state.posMax)
        if not found or (start and re.match("[0-9A-Za-z$]", state.src[start - 1])):
            return False
        opener, source, after = "$", found[1], found.end()
    if not source.strip():
        return False
    if not silent:
        token = state.push("formula", "math", 0)
        token.content, token.markup = source, opener
    state.pos = after
    return True


def _block(state: StateBlock, first: int, end_line: int, silent: bool) -> bool:
    """A formula that begins a line and ends one, with no empty line in it."""
    start = state.bMarks[first] + state.tShift[first]
    opener = state.src[start : start + 2]
    if opener not in ("$$", r"\[") or state.is_code_block(first):
        return False
    end = state.src.find(_CLOSERS[opener], start + 2, start + 2 + LONGEST)
    if end < 0 or opener in state.src[start + 2 : end]:
        return False
    last = first
    while state.eMarks[last] < end:
        last += 1
        if last >= end_line or state.sCount[last] < state.blkIndent or state.isEmpty(last):
            return False
    rest = state.src[end + 2 : state.eMarks[last]].strip()
    lines = [
        state.src[max(start + 2, state.bMarks[line] + state.tShift[line]) : min(end, state.eMarks[line])]
        for line in range(first, last + 1)
    ]
    source = "\n".join(lines).strip()
    if not source or rest not in ("", ".", ",", ";"):
        return False
    if not silent:
        state.line = last + 1
        token = state.push("formula_block", "math", 0)
        token.block, token.content, token.markup, token.map = True, source, opener, [first, last + 1]
        token.meta = {"rest": rest}
    return True


def _render(_: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    alone = token.type == "formula_block"
    env["formulas"] = env.get("formulas", 0) + len(token.content)
    html = None
    if env["formulas"] <= MOST:
        html = to_mathml(token.content + token.meta.get("rest", ""), block=token.markup in ("$$", r"\["))
    if html is None:
        closer = _CLOSERS.get(token.markup, token.markup)
        html = f'<code class="formula">{shown(token.markup + token.content + closer, code=True)}</code>'
    return f"<p>{html}</p>\n" if alone else html
