"""Turn text from models and raters, which is hostile input, into HTML that is safe and quiet to show.

Text is read as Markdown without HTML and images, with formulas (formulas.py) and coloured code (highlight.py); what
would hide or reorder it shows as a mark (characters.py). All that comes out of this is cleaned once more against a list
of harmless elements. Any text takes a bounded time and makes a bounded page: what is too much is shown as plain text.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from threading import Lock
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock, table
from markdown_it.rules_core import StateCore
from markdown_it.token import Token

from annotate.api import formulas, highlight
from annotate.api.characters import MOST_MARKS, shown, without_surrogates
from annotate.services.masks import mask_names

LONGEST = 50_000  # characters that are read as Markdown; longer texts are shown as plain text
LONGEST_SHOWN = 2_000_000  # of which no more than this
EXCERPT = 200  # characters of a prompt in a list
PIECE = 10_000  # characters of plain text in one element, so that browsers lay out only those in view
MOST_TAGS = 30_000  # "<" in the HTML of one text
_MOST_BRACKETS = 5_000  # the Markdown parser takes a time that grows with their square
_MOST_BLOCKS = 15_000
_MOST_CELLS = 10_000  # of a table; the parser fills up short rows
_DEEPEST = 100  # lists and quotes in each other

TAGS = {
    *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "strong", "em", "s", "code", "pre", "blockquote"),
    *("ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td", "a", "span"),
    *formulas.TAGS,
}
CLASSES = {"span": {"odd", *highlight.CLASSES}, "code": {"formula"}, "p": {"long"}, "pre": {"piece"}}


class _TooMuch(Exception):
    """A text that would make too large a page, or take too long to read as Markdown."""


def to_html(text: str) -> str:
    """Markdown -> HTML of harmless elements, without ids, styles, images, forms or scripts; classes are CLASSES."""
    html = _kept.get(text)
    if html is None:
        html = _to_html(text)
        _kept.put(text, html)
    return html


def excerpt(prompt: list[dict[str, Any]]) -> str:
    """How a prompt's last turn begins, as plain text for a list; EXCERPT characters at most."""
    return str(prompt[-1]["content"][:EXCERPT])


def turns_to_html(messages: list[dict[str, Any]], mask: Sequence[str] = ()) -> list[dict[str, str]]:
    """Messages -> [{"role", "html"}], with the names in `mask` hidden."""
    return [{"role": message["role"], "html": to_html(mask_names(message["content"], mask)[0])} for message in messages]


def _to_html(text: str) -> str:
    text = without_surrogates(text).removeprefix("\ufeff")  # which files begin with
    if len(text) > LONGEST or text.count("[") > _MOST_BRACKETS:
        return _cleaner().clean(_plain(text))
    try:
        html = _markdown().render(text, {})
        if html.count("<") > MOST_TAGS:
            raise _TooMuch
    except _TooMuch:
        html = _plain(text)
    return _cleaner().clean(html)


def _plain(text: str) -> str:
    """HTML of a text as it is, in pieces that end with a line where lines are short."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    length, text = len(text), text[:LONGEST_SHOWN]
    what = "Plain text" if len(text) == length else f"The first {len(text):,} characters, as plain text"
    parts = [f'<p class="long" data-length="{length}">{what}; there are {length:,} characters in all.</p>']
    start, marks = 0, MOST_MARKS
    while start < len(text):
        end = min(start + PIECE, len(text))
        if end < len(text):
            end = text.rfind("\n", start + PIECE // 2, end) + 1 or end
        html = shown(text[start:end], most=max(0, marks))
        marks -= html.count('class="odd"')
        parts.append(f'<pre class="piece">{html}</pre>')
        start = end
    return "\n".join(parts)


@cache
def _markdown() -> MarkdownIt:
    # html off: tags in the text are shown as text. Images are off too: nothing is ever loaded from elsewhere.
    options = {"html": False, "breaks": True, "maxNesting": _DEEPEST}
    md = MarkdownIt("commonmark", options).enable(["table", "strikethrough"]).disable("image")
    md.use(formulas.formulas_plugin)
    md.core.ruler.after("block", "bounded", _bounded)
    md.core.ruler.after("inline", "bounded_inline", _bounded_inline)
    md.block.ruler.at("table", _table, {"alt": ["paragraph", "reference"]})
    for kind in ("text", "code_inline", "code_block", "fence"):
        md.add_render_rule(kind, globals()[f"_{kind}"])
    return md


def _bounded(state: StateCore) -> None:
    # The parser leaves out what is nested deeper than maxNesting; here that is shown, as plain text.
    if len(state.tokens) > _MOST_BLOCKS or any(token.level >= _DEEPEST - 1 for token in state.tokens):
        raise _TooMuch


def _bounded_inline(state: StateCore) -> None:
    if any(child.level >= _DEEPEST for token in state.tokens for child in token.children or ()):
        raise _TooMuch


def _table(state: StateBlock, first: int, end: int, silent: bool) -> bool:
    if first + 2 < end and not silent:
        rule = state.src[state.bMarks[first + 1] : state.eMarks[first + 1]]
        if rule.count("|") > 1 and not rule.strip("|-: \t>"):
            last = next((line for line in range(first, end) if state.isEmpty(line)), end)
            if rule.count("|") * (last - first) > _MOST_CELLS:
                raise _TooMuch
    return table(state, first, end, silent)


def _text(_: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    return shown(tokens[index].content)


def _code_inline(_: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    return f"<code>{shown(tokens[index].content, code=True)}</code>"


def _code_block(_: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    return f"<pre><code>{shown(tokens[index].content, code=True)}</code></pre>\n"


def _fence(_: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    code, language = tokens[index].content, highlight.language_of(tokens[index].info)
    if language is None:
        return _code_block(_, tokens, index, options, env)
    env["code"] = env.get("code", 0) + len(code)
    html = highlight.coloured(code, language) if env["code"] <= highlight.MOST else shown(code, code=True)
    return f'<pre data-language="{language}"><code>{html}</code></pre>\n'


@cache
def _cleaner() -> nh3.Cleaner:
    """A second wall behind the Markdown parser. No images, forms, styles, ids; links leave this site in a new tab."""
    return nh3.Cleaner(
        tags=TAGS,
        attributes={"*": set(), "a": {"href"}, "ol": {"start"}, "math": {"alttext"}, "p": {"data-length"}},
        tag_attribute_values={**formulas.ATTRIBUTES, "pre": {"data-language": set(highlight.LANGUAGES)}},
        allowed_classes=CLASSES,
        url_schemes={"http", "https", "mailto"},
        url_relative="deny",
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


class _Kept:
    """The HTML of the texts shown last, by text: an item goes to several raters within a short time."""

    SIZE = 16_000_000  # characters of texts and HTML

    def __init__(self) -> None:
        self.found: OrderedDict[str, str] = OrderedDict()
        self.size = 0
        self.lock = Lock()

    def get(self, text: str) -> str | None:
        with self.lock:
            if text in self.found:
                self.found.move_to_end(text)
            return self.found.get(text)

    def put(self, text: str, html: str) -> None:
        with self.lock:
            if text in self.found:
                return
            self.found[text] = html
            self.size += len(text) + len(html)
            while self.size > self.SIZE:
                old, gone = self.found.popitem(last=False)
                self.size -= len(old) + len(gone)


_kept = _Kept()
