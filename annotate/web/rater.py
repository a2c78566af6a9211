"""The rater's page: Gradio draws the frame, static/rate.js fills it from the API.

gr.HTML evaluates its value as a template, so it gets a constant of ours and never a word of anybody else's.
"""

import gradio as gr

from annotate.web.login import STATIC


def rater_page() -> gr.Blocks:
    """A page without events: what a rater does goes to the REST API, not through Gradio's queue."""
    with gr.Blocks(title="Concord", fill_width=True, analytics_enabled=False) as page:
        gr.HTML((STATIC / "rate.html").read_text(encoding="utf-8"), js_on_load=None, apply_default_css=False)
    return page
