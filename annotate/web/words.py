"""The words of the plain pages, which need no script, and the row of languages at their end."""

from html import escape

from fastapi import Request

from annotate.api.words import direction, language_of, languages, later, put, say

__all__ = ["chooser", "direction", "language_of", "later", "say", "told"]


def told(request: Request, sentence: str, **html: str) -> str:
    """A sentence as HTML, in the language of whoever asks. Its values are HTML of ours, or escaped already."""
    return put(escape(say(language_of(request), sentence), quote=False), html)


def chooser(request: Request, here: str) -> str:
    """A form with a button for each language, which leads back to the path `here`."""
    language = language_of(request)
    current = {language: ' aria-current="true"'}
    buttons = "".join(
        f'<button name="language" value="{code}" lang="{code}"{current.get(code, "")}>{escape(name)}</button>'
        for code, name in languages().items()
    )
    label = escape(say(language, "Language"))
    return (
        f'<form class="languages" method="post" action="/language" aria-label="{label}">'
        f'<input type="hidden" name="next" value="{escape(here)}">{buttons}</form>'
    )
