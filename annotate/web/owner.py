"""The owner's page: how far a project is, how well its raters agree, who answered how much.

Names, logins and imported ids are other people's words: they go into a data frame and plots as plain values, and
into gr.HTML never, which would evaluate them as templates. Numbers are ours.
"""

from typing import Any

import gradio as gr
import pandas as pd  # type: ignore[import-untyped]

from annotate.services.people import memberships
from annotate.services.projects import find_project
from annotate.services.report import project_report
from annotate.store.database import Database
from annotate.store.tables import Person

COLUMNS = ["Rater", "Name", "Pseudonym", "Role", "Answers", "Reliability", "Median seconds"]
PLOTTED = 25
TOP = """<div class="owner-top"><span class="title">Progress</span>
<a href="/account">Account</a>
<form method="post" action="/logout"><button class="quiet">Sign out</button></form></div>"""


def owner_page(database: Database) -> gr.Blocks:
    """Every handler takes the person from the login session and looks up in the database what they own."""

    def projects(request: gr.Request) -> Any:
        names = _owned(database, request)
        return gr.Dropdown(choices=names, value=names[0] if names else None)

    def show(name: str | None, request: gr.Request) -> list[Any]:
        if name not in _owned(database, request):
            return [_tiles({}), gr.BarPlot(value=None), None]
        with database.read() as session:
            facts = project_report(session, find_project(session, name))
        people = [person for person in facts["people"] if person["role"] == "rater" or person["answers"]]
        busiest = sorted(people, key=lambda person: -person["answers"])[:PLOTTED]
        plot = pd.DataFrame({"rater": [p["rater"] for p in busiest], "answers": [p["answers"] for p in busiest]})
        most = max([1, *plot["answers"]])
        return [_tiles(facts), gr.BarPlot(value=plot, y_lim=[0, most]), [_row(person) for person in people]]

    with gr.Blocks(title="Concord – progress", analytics_enabled=False) as page:
        gr.HTML(TOP, js_on_load=None, apply_default_css=False)
        with gr.Row(elem_classes="owner-pick"):
            project = gr.Dropdown(label="Project", choices=[], container=False, scale=5)
            refresh = gr.Button("Refresh", scale=0, min_width=120)
        tiles = gr.HTML(_tiles({}), elem_id="tiles", js_on_load=None, apply_default_css=False)
        plot = gr.BarPlot(x="rater", y="answers", title="Answers per rater", sort="-y", x_title=" ", height=260)
        table = gr.Dataframe(
            headers=COLUMNS, datatype="str", interactive=False, label="People", wrap=True, elem_id="people"
        )
        outputs = [tiles, plot, table]
        quiet: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": None, "queue": False}
        page.load(projects, None, project, **quiet)
        gr.on([project.change, refresh.click], show, project, outputs, **quiet)
    return page


def _owned(database: Database, request: gr.Request) -> list[str]:
    """The names of the projects that the person behind a request owns, by the database as it is now."""
    with database.read() as session:
        person = session.query(Person).filter_by(login=request.username).one_or_none()
        return [project.name for _, project in memberships(session, person.id, "owner")] if person else []


def _row(person: dict[str, Any]) -> list[str]:
    trust, seconds = person["reliability"], person["median_seconds"]
    return [
        person["rater"],
        person["name"] or "",
        person["pseudonym"],
        person["role"] + ("" if person["login"] else ", imported"),
        str(person["answers"]),
        "–" if trust is None else f"{trust:.2f}",
        "–" if seconds is None else f"{seconds:.0f}",
    ]


def _minus(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _tiles(facts: dict[str, Any]) -> str:
    """HTML of numbers only."""
    if not facts:
        return '<div class="tiles"></div>'
    agreed, slots = facts["agreement"], facts["slots"]
    alpha, interval = agreed["krippendorff_alpha_nominal"], agreed["krippendorff_alpha_nominal_interval"]
    between = f"95% {_minus(interval[0])} to {_minus(interval[1])}" if interval else "needs two items with two answers"
    mirrored = agreed["krippendorff_alpha_symmetrised"]
    either_way = "" if mirrored is None else f"; in either order {_minus(mirrored)}"
    part = slots["filled"] / slots["all"] if slots["all"] else 0.0
    tiles = [
        (f"{facts['items_answered']}<small> of {facts['items']}</small>", "items with an answer", ""),
        (
            f"{slots['filled']}<small> of {slots['all']}</small>",
            "slots filled",
            f'<span class="bar"><span style="width:{100 * part:.1f}%"></span></span>',
        ),
        (
            f"{facts['answers']}",
            f"answers by {facts['raters']} raters",
            f"and {facts['surplus']} surplus" if facts["surplus"] else "",
        ),
        (
            "–" if agreed["raw"] is None else f"{agreed['raw']:.0%}",
            "raw agreement",
            "between two answers",
        ),
        ("–" if alpha is None else _minus(alpha), "Krippendorff's alpha", between + either_way),
    ]
    simulated = '<p class="simulated">Simulated project: its imported answers come from programs, not people.</p>'
    return (
        (simulated if facts["simulated"] else "")
        + '<div class="tiles">'
        + "".join(
            f'<div class="tile"><b>{number}</b><span>{label}</span><i>{more}</i></div>' for number, label, more in tiles
        )
        + "</div>"
    )
