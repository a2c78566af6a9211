"""The pages that Gradio draws, mounted on the application. Importing Gradio takes seconds.

Gradio draws the frame and the theme; a script fills it from the REST API. So a page has no events: what people do goes
to the API and not through Gradio's queue. gr.HTML evaluates its value as a template, so it gets a constant of ours and
never a word of anybody else's.
"""

import json
import os
from html import escape

# Before Gradio is imported: it phones home unless told not to.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr
from fastapi import FastAPI, Request

from annotate.api.words import languages
from annotate.web.gate import PAGES
from annotate.web.plain import STATIC

# The folder in static/ that has a page's page.html, page.js, and its style sheets.
FOLDERS = {"/rate": "rate", "/arena": "arena", "/owner": "steer", "/review": "steer"}


def mount_pages(app: FastAPI) -> None:
    """Mount the pages that the gate knows, and no other."""

    def who(request: Request) -> str | None:
        found = getattr(request.state, "visitor", None)  # the gate has looked, and lets nobody else through
        return found.login if found else None

    for path in PAGES:
        gr.mount_gradio_app(
            app,
            _frame(FOLDERS[path]),
            path=path,
            auth_dependency=who,
            footer_links=[],
            run_history=False,
            show_error=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            max_file_size=0,
            theme=_theme(),
            head=_head(FOLDERS[path]),
        )


def _frame(folder: str) -> gr.Blocks:
    """A page with the folder's page.html, and in it welcome.html, what comes before rating, where it asks for that."""
    html, welcome = ((STATIC / name).read_text(encoding="utf-8") for name in (f"{folder}/page.html", "welcome.html"))
    with gr.Blocks(title="Concord", fill_width=True, analytics_enabled=False) as page:
        gr.HTML(html.replace("<!-- welcome.html -->", welcome), js_on_load=None, apply_default_css=False)
    return page


def _head(folder: str) -> str:
    """Style sheets of all pages, then the page's own, page.css first, and its script.

    `v` makes browsers fetch a changed file.
    """

    def stamp(name: str) -> str:
        return f"/static/{name}?v={int((STATIC / name).stat().st_mtime)}"

    own = sorted((path.stem for path in (STATIC / folder).glob("*.css")), key=lambda stem: (stem != "page", stem))
    sheets = ["concord.css", "text.css", *(f"{folder}/{stem}.css" for stem in own)]  # x before x-small, which mends it
    spoken = f'<meta name="concord-languages" content="{escape(json.dumps(languages(), ensure_ascii=False))}">'
    head = spoken + f'<link rel="icon" href="{stamp("icon.svg")}"><script src="{stamp("look-first.js")}"></script>'
    head += "".join(f'<link rel="stylesheet" href="{stamp(sheet)}">' for sheet in sheets)
    head += f'<script type="module" src="{stamp(f"{folder}/page.js")}"></script>'
    return head + '<meta name="color-scheme" content="light dark">'


def _theme() -> gr.themes.Base:
    """Gradio's default with the colours of static/concord.css, and with fonts that every machine has."""
    shades = (
        "#eef7f6",
        "#d5ebe8",
        "#aed8d3",
        "#7fc0b9",
        "#3f978f",
        "#0c6b63",
        "#0a5a53",
        "#094b45",
        "#073b37",
        "#052b28",
    )
    accent = gr.themes.Color(*shades, "#031a18")
    theme = gr.themes.Default(
        primary_hue=accent,
        secondary_hue=accent,
        neutral_hue="stone",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
        radius_size="lg",
    )
    colours = {"body_background_fill": ("#f6f5f2", "#16181b"), "block_background_fill": ("#ffffff", "#1f2226")}
    colours |= {"block_border_color": ("#dedbd4", "#353940"), "input_background_fill": ("#ffffff", "#1f2226")}
    colours |= {
        "table_even_background_fill": ("#ffffff", "#1f2226"),
        "table_odd_background_fill": ("#faf9f7", "#1b1d21"),
    }
    light = {name: pair[0] for name, pair in colours.items()}
    return theme.set(**light, **{f"{name}_dark": pair[1] for name, pair in colours.items()})
