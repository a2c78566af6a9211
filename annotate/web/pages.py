"""The Gradio pages of raters and owners, mounted on the application. Importing Gradio takes seconds."""

import logging
import os
import sys

# Before Gradio is imported: it phones home unless told not to.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr
import gradio.routes
from fastapi import FastAPI, Request

from annotate.web.gate import PAGES
from annotate.web.login import STATIC
from annotate.web.owner import owner_page
from annotate.web.rater import rater_page
from annotate.web.watch import facts_of

log = logging.getLogger("annotate.pages")


def mount_pages(app: FastAPI) -> None:
    """Mount the pages that the gate knows, the rater's at /rate and the owner's at /owner."""

    def who(request: Request) -> str | None:
        found = getattr(request.state, "visitor", None)  # the gate has looked, and lets nobody else through
        return found.login if found else None

    gradio.routes.traceback = _Traceback
    pages = {"/rate": rater_page(), "/owner": owner_page(app.state.database)}
    for path in PAGES:
        gr.mount_gradio_app(
            app,
            pages[path],
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
            head=_head(path),
        )


class _Traceback:
    """In place of the module `traceback` where Gradio prints what went wrong in an event: values and all."""

    @staticmethod
    def print_exc() -> None:
        error = sys.exception()
        if error is not None:
            log.error("an event of a page failed", extra={"facts": facts_of(error)})


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


def _head(path: str) -> str:
    """Our style sheet, and for the rater page its script; `v` makes browsers fetch a changed file."""

    def stamp(name: str) -> str:
        return f"/static/{name}?v={int((STATIC / name).stat().st_mtime)}"

    head = f'<link rel="icon" href="{stamp("icon.svg")}"><link rel="stylesheet" href="{stamp("concord.css")}">'
    if path == "/rate":
        head += f'<link rel="stylesheet" href="{stamp("rate.css")}">'
        head += f'<script type="module" src="{stamp("rate.js")}"></script>'
    return head + '<meta name="color-scheme" content="light dark">'
