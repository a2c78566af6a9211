"""Turn text from models and raters, which is hostile input, into HTML that is safe and quiet to show."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import nh3
from markdown_it import MarkdownIt

from annotate.services.masks import mask_names

__all__ = ["mask_names", "to_html", "turns_to_html"]

TAGS = {
    *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "strong", "em", "s", "code", "pre", "blockquote"),
    *("ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td", "a"),
}


@cache
def _markdown() -> MarkdownIt:
    # html off: tags in the text are shown as text. Images are off too: nothing is ever loaded from elsewhere.
    # What is nested deeper than maxNesting is left out; 20, its default, is ten lists.
    options = {"html": False, "breaks": True, "maxNesting": 100}
    return MarkdownIt("commonmark", options).enable(["table", "strikethrough"]).disable("image")


@cache
def _cleaner() -> nh3.Cleaner:
    """A second wall behind the Markdown parser. No images, forms, styles, ids or classes; links open a new tab."""
    return nh3.Cleaner(
        tags=TAGS,
        attributes={"a": {"href"}, "ol": {"start"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


def to_html(text: str) -> str:
    """Markdown -> HTML of harmless tags only, without ids, classes, styles, images, forms or scripts."""
    return _cleaner().clean(_markdown().render(text))


def turns_to_html(messages: list[dict[str, Any]], mask: Sequence[str] = ()) -> list[dict[str, str]]:
    """Messages -> [{"role", "html"}], with the names in `mask` hidden."""
    return [{"role": message["role"], "html": to_html(mask_names(message["content"], mask)[0])} for message in messages]
