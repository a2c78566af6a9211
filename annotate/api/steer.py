"""What owners and reviewers steer with: a look at items before they are imported and at an export before it is made,
the items that raters disagree on, and decisions about them."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field, ValidationError

from annotate.api.items import FormatName, read_sent
from annotate.api.problems import PROBLEMS
from annotate.api.render import excerpt, to_html, turns_to_html
from annotate.api.security import AnyAsker
from annotate.api.shapes import After, Id, Limit, Strict
from annotate.api.tasks import EditedOut, SpanOut, Turn
from annotate.api.words import language_of, say
from annotate.api.work import LONGEST_TEXT
from annotate.services import decisions as service
from annotate.services.answers import in_shown_order
from annotate.services.contested import contested_items
from annotate.services.judgements import tell_models_apart
from annotate.services.people import may_create_projects
from annotate.services.preview import preview
from annotate.services.projects import Name
from annotate.services.refusals import Refused
from annotate.services.rights import Right
from annotate.store.tables import Decision, Project
from preferences.errors import BadInput

router = APIRouter(prefix="/api/v1/projects", tags=["steering"], responses=PROBLEMS)
PREVIEWED = 5  # items
PAIRS = 3


class PreviewIn(Strict):
    lines: str = Field(description="items as for an import: one JSON object a line")
    mask: list[Name] = Field(default=[], max_length=200, description="names to hide in responses")
    format: FormatName = None


class PreviewItem(BaseModel):
    """An item as raters would see it, but for the order of its responses, which each rater has of their own."""

    key: str
    prompt: list[Turn]
    responses: list[list[Turn]]
    tags: list[str]
    gold: list[int] | None
    explanation_html: str | None


class PreviewOut(BaseModel):
    count: int = Field(description="how many items there are; 0 with a problem")
    items: list[PreviewItem] = Field(description="the first five")
    problem: str | None = Field(description="why they could not be imported, with the line")
    lost: list[str] = Field(description="what the file says and an item has no place for, a sentence a kind")


class ContestedOut(BaseModel):
    item: int
    key: str
    prompt: str = Field(description="how its last turn begins")
    responses: int
    answers: int
    disagreement: float | None = Field(description="0 (all alike) to 1; null with fewer than two answers")
    flags: dict[str, int] = Field(description="flags of its answers and reasons of its skips, and how many")
    decided: bool
    held_back: bool = Field(description="it stays out of exports until somebody decides")


class ContestedPage(BaseModel):
    items: list[ContestedOut]
    after: int | None = Field(description="give it as `after` for the next page; null on the last one")


class Decided(BaseModel):
    """A decision, ranks and strength in the order shown to who asks."""

    ranks: list[int]
    strength: int | None
    rationale: str | None
    at: float
    stands: bool = Field(description="whether it is the newest of all, which an export goes by")


class OtherDecided(Decided):
    by: str = Field(description="pseudonym")


class Vote(BaseModel):
    """A rater's answer, in the order shown to who asks."""

    rater: str = Field(description="pseudonym")
    ranks: list[int]
    strength: int | None
    ratings: dict[str, list[float]] | None
    flags: list[str]
    spans: list[SpanOut]
    rationale: str | None
    edited: EditedOut | None


class DecisionOut(BaseModel):
    """An item to decide about, its responses in this person's own order. What others say follows their decision."""

    item: int
    key: str
    prompt: list[Turn]
    responses: list[list[Turn]]
    strength: bool = Field(description="whether the project asks how much better the best is")
    decided: Decided | None = Field(description="this person's own decision")
    votes: list[Vote] | None = Field(description="null before that")
    others: list[OtherDecided] | None = Field(description="decisions of other people; null before one's own")
    models: list[str | None] | None = Field(description="who wrote which, for owners; null before one's own decision")


class DecisionIn(Strict):
    """Ranks and strength in the order of the responses in the decision's GET."""

    ranks: list[Annotated[int, Field(ge=1, le=1000)]]
    strength: Annotated[int, Field(ge=-3, le=3)] | None = None
    rationale: Annotated[str, Field(max_length=LONGEST_TEXT)] | None = None


class ExportPreview(BaseModel):
    counts: dict[str, int] = Field(description="rows of each file, as in the manifest; `pairs` are those with a winner")
    rows: list[dict[str, Any]] = Field(description="the first pairs with a winner")
    left_out: int = Field(description="items that are held out elsewhere, on another side of the split")
    held_back: int = Field(description="items that raters differ on more than the project wants, and nobody decided")
    models: bool = Field(description="whether items say which models wrote their responses, as judgements need it")
    warnings: list[str]


async def _preview_body(request: Request, asker: AnyAsker) -> PreviewIn:
    """The body, which may be long, and is read only from somebody who may make projects."""

    def check() -> None:
        if asker.rights is not None and Right.MANAGE not in asker.rights:
            raise Refused("forbidden", "This token does not carry the right 'manage'.")
        with asker.database.read() as session:
            may_create_projects(session, asker.person_id)

    await run_sync(check)
    body = await request.body()
    try:
        return await run_sync(PreviewIn.model_validate_json, body)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise Refused("bad-input", f"{key + ': ' if key else ''}{first['msg'].rstrip('.')}.") from None


@router.post(
    "/preview",
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": PreviewIn.model_json_schema()}}}
    },
)
def preview_items(body: Annotated[PreviewIn, Depends(_preview_body)]) -> PreviewOut:
    """What an import would bring: how many items, the first ones as raters would see them. Nothing is stored."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.jsonl"
        path.write_bytes(body.lines.encode("utf-8", "surrogatepass"))
        try:
            records, lost = read_sent(path, body.format)
        except BadInput as error:  # the file is of our own making: say what is wrong in it, not where it lies
            return PreviewOut(count=0, items=[], problem=f"{str(error).replace(str(path), 'items')}.", lost=[])
    items = [
        PreviewItem(
            key=record.id,
            prompt=_turns([message.model_dump() for message in record.prompt], ()),
            responses=[_turns([turn.model_dump() for turn in one.messages], body.mask) for one in record.responses],
            tags=record.tags,
            gold=record.gold,
            explanation_html=to_html(record.explanation) if record.explanation else None,
        )
        for record in records[:PREVIEWED]
    ]
    return PreviewOut(count=len(records), items=items, problem=None, lost=lost)


@router.get("/{project_id}/contested")
def contested(project_id: Id, asker: AnyAsker, after: After = 0, limit: Limit = 50) -> ContestedPage:
    """The items with two answers or more, or with a flag or a skip: first what nobody has decided, most contested
    first. `after` counts from the beginning of this list, which moves as people rate and decide."""
    with asker.reads(project_id, Right.REVIEW) as (session, _):
        rows = contested_items(session, project_id, after=after, limit=limit + 1)
    out = [
        ContestedOut(
            item=row.item.id,
            key=row.item.key,
            prompt=excerpt(row.item.prompt),
            responses=len(row.item.responses),
            answers=row.answers,
            disagreement=row.disagreement,
            flags=row.flags,
            decided=row.decided,
            held_back=row.held_back,
        )
        for row in rows[:limit]
    ]
    return ContestedPage(items=out, after=after + limit if len(rows) > limit else None)


@router.get("/{project_id}/items/{item_id}/decision")
def decision(project_id: Id, item_id: Id, asker: AnyAsker) -> DecisionOut:
    """An item to decide about, blind: what the raters said comes only with one's own decision."""
    with asker.reads(project_id, Right.REVIEW) as (session, member):
        view = service.look(session, member, item_id)
        project = session.get_one(Project, project_id)
    return _decision(view, project, owner=asker.may(member, Right.MANAGE))


@router.put("/{project_id}/items/{item_id}/decision")
def decide(project_id: Id, item_id: Id, body: DecisionIn, asker: AnyAsker) -> DecisionOut:
    """Decide, or decide anew. The newest decision is what an export says of the item; the raters' answers stay."""
    with asker.writes(project_id, Right.REVIEW) as (session, member):
        view = service.decide(session, member, item_id, body.ranks, body.strength, body.rationale)
        project = session.get_one(Project, project_id)
    return _decision(view, project, owner=asker.may(member, Right.MANAGE))


@router.get("/{project_id}/exports/preview")
def export_preview(project_id: Id, asker: AnyAsker, request: Request) -> ExportPreview:
    """What an export of this project would hold now. Nothing is stored, and no split is chosen for good."""
    with asker.reads(project_id, Right.EXPORT) as (session, _):
        project = session.get_one(Project, project_id)
        found, models = preview(session, project), tell_models_apart(session, project)
    language, folder = language_of(request), found.folder
    counts = folder.counts() if folder else {}
    pairs = [pair for rows in folder.pairs.values() for pair in rows] if folder else []
    warnings = [
        said
        for count, said in (
            (not folder, say(language, "There are no answers yet, so there is nothing to export.")),
            (found.waiting, say(language, "Items that wait for their first answer: {n}", n=found.waiting)),
            (found.short, say(language, "Items with fewer answers than they ask for: {n}", n=found.short)),
            (
                found.divided,
                say(language, "Items that raters are divided on, and nobody has decided: {n}", n=found.divided),
            ),
            (
                found.held_back,
                say(language, "Items that are held back until somebody decides about them: {n}", n=found.held_back),
            ),
            (
                found.weightless,
                say(
                    language,
                    "Raters who agree with the others hardly more than by chance, and weigh little: {n}",
                    n=found.weightless,
                ),
            ),
            (
                found.unsettled,
                say(language, "Groups of items whose split this export would choose for good: {n}", n=found.unsettled),
            ),
            (
                folder and not counts["test"],
                say(language, "The test split has no pairs, so that nothing is held out to evaluate with."),
            ),
        )
        if count
    ]
    return ExportPreview(
        counts={**counts, "pairs": len(pairs), "edited": sum(pair.source == "edited" for pair in pairs)},
        rows=[pair.model_dump(mode="json") for pair in pairs[:PAIRS]],
        left_out=folder.manifest["left_out"] if folder else 0,
        held_back=found.held_back,
        models=models,
        warnings=warnings,
    )


def _decision(view: service.View, project: Project, *, owner: bool) -> DecisionOut:
    item, shown = view.item, view.shown
    responses = [item.responses[number] for number in shown]
    out = DecisionOut(
        item=item.id,
        key=item.key,
        prompt=_turns(item.prompt, ()),
        responses=[_turns(response["messages"], project.mask) for response in responses],
        strength=project.strength,
        decided=None,
        votes=None,
        others=None,
        models=None,
    )
    if view.own is None:
        return out
    out.decided = Decided(**_facts(view, view.own))
    out.others = [OtherDecided(**_facts(view, row), by=member.pseudonym) for row, member in view.others]
    out.votes = []
    for answer, text, member in view.votes:
        said = in_shown_order(shown, answer, text)
        out.votes.append(
            Vote(
                rater=member.pseudonym,
                ranks=said.ranks,
                strength=said.strength,
                ratings=said.ratings,
                flags=list(said.flags),
                spans=[SpanOut(**span) for span in said.spans],
                rationale=said.rationale,
                edited=EditedOut(response=said.edited[0], text=said.edited[1]) if said.edited else None,
            )
        )
    models = [response["model"] for response in responses]
    out.models = models if owner and any(models) else None
    return out


def _facts(view: service.View, row: Decision) -> dict[str, Any]:
    strength = row.strength
    if strength is not None and view.shown == [1, 0]:
        strength = -strength
    return {
        "ranks": [row.ranks[number] for number in view.shown],
        "strength": strength,
        "rationale": row.rationale,
        "at": row.at,
        "stands": row.id == view.stands,
    }


def _turns(messages: list[dict[str, Any]], mask: Any) -> list[Turn]:
    return [Turn(**turn) for turn in turns_to_html(messages, mask)]
