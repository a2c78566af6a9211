"""Items and answers as owners and reviewers see them, imports, and exports."""

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, BackgroundTasks, Depends, Header, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from annotate.api.problems import PROBLEMS
from annotate.api.security import AnyAsker, Asker
from annotate.api.shapes import LARGEST_ID, After, Id, Limit, Strict
from annotate.api.versions import say_version, version_of
from annotate.services import items as service
from annotate.services.exchange import import_items
from annotate.services.export import export_preferences, settle_splits
from annotate.services.items import Counted, ItemChange
from annotate.services.judgements import judgements, note_judgements
from annotate.services.masks import mask_names
from annotate.services.refit import refit
from annotate.services.refusals import Refused
from annotate.services.rights import Right, require
from annotate.store.database import DatabaseFailed
from annotate.store.tables import Project
from preferences.contract import Item, write_preferences
from preferences.errors import BadInput
from preferences.files import dump_json
from preferences.formats import FORMATS, read_as
from preferences.judgements import write_judgements

router = APIRouter(prefix="/api/v1", tags=["items"], responses=PROBLEMS)
COUNTS = "Concord-Counts"  # a header
FormatName = Annotated[str | None, Field(max_length=100, description="the other tool's format that the items are in")]


class ItemOut(BaseModel):
    """An item in import order. `models`, `gold` and what goes with it are for owners only: reviewers judge blind."""

    id: int
    key: str = Field(description="the id that the import gave")
    prompt: list[dict[str, Any]]
    responses: list[list[dict[str, Any]]]
    models: list[str | None] | None
    gold: list[int] | None
    met: int | None = Field(description="raters who have answered a gold item; null for others")
    right: int | None = Field(description="how many of them rightly")
    tags: list[str]
    priority: float
    overlap: int
    slots: int = Field(description="how many it wants as it stands: fewer than `overlap` where its answers are sure")
    filled: int = Field(description="how many of them are there")
    version: int


class ItemPage(BaseModel):
    items: list[ItemOut]
    after: int | None = Field(description="give it as `after` for the next page; null on the last one")


class AnswerOut(BaseModel):
    """A standing answer, ranks in import order, its rater under a pseudonym."""

    id: int
    item: int
    key: str
    rater: str
    kind: str
    revision: int
    ranks: list[int]
    strength: int | None
    ratings: dict[str, list[float]] | None
    flags: list[str]
    rationale: str | None
    edited: dict[str, Any] | None
    shown: list[int] | None
    seconds: float | None
    guideline: int | None
    app_version: str | None
    submitted_at: float | None


class AnswerPage(BaseModel):
    answers: list[AnswerOut]
    after: int | None


class ImportedOut(BaseModel):
    items: int
    answers: int
    raters: int
    unchanged: int = Field(description="known items that came back with nothing but perhaps another priority")
    priorities: int = Field(default=0, description="how many of these took another priority")
    near: int = Field(description="whose prompt is nearly that of another item, so that they share a group")
    kept_apart: int = Field(description="groups that share a prompt with one on another side of the split")
    lost: list[str] = Field(
        default=[], description="what the file says and an item has no place for, a sentence a kind"
    )


class FormatOut(BaseModel):
    name: str
    about: str


class ExportIn(Strict):
    projects: list[Annotated[int, Field(ge=1, le=LARGEST_ID)]] = Field(min_length=1, max_length=100)


async def _body(request: Request, project_id: Id, asker: AnyAsker) -> bytes:
    """The body, which may be long, and is read only from somebody who may add items."""

    def check() -> None:
        with asker.reads(project_id, Right.MANAGE):
            pass

    await run_sync(check)
    return await request.body()


@router.get("/projects/{project_id}/items")
def items(
    project_id: Id,
    asker: AnyAsker,
    after: After = 0,
    limit: Limit = 50,
    search: Annotated[str | None, Field(max_length=200, description="a part of the key, or a tag")] = None,
    gold: Annotated[bool | None, Field(description="only gold items, or only others; for owners")] = None,
) -> ItemPage:
    """The project's items."""
    with asker.reads(project_id, Right.REVIEW) as (session, member):
        if gold is not None and not asker.may(member, Right.MANAGE):
            raise Refused("forbidden", "Only owners may know which items are gold.")
        found = service.items_of(session, project_id, after=after, limit=limit + 1, search=search, gold=gold)
        out = [
            _item(one, asker.may(member, Right.MANAGE), session.get_one(Project, project_id)) for one in found[:limit]
        ]
    return ItemPage(items=out, after=out[-1].id if len(found) > limit else None)


@router.post(
    "/projects/{project_id}/items",
    openapi_extra={"requestBody": {"required": True, "content": {"application/x-ndjson": {"schema": {}}}}},
)
def add_items(
    project_id: Id,
    asker: AnyAsker,
    body: Annotated[bytes, Depends(_body)],
    afterwards: BackgroundTasks,
    format: FormatName = None,
) -> ImportedOut:
    """Import items: one JSON object a line, as in a file for `annotate import`. All of them, or none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.jsonl"
        path.write_bytes(body)
        try:
            records, lost = read_sent(path, format)
            with asker.writes(project_id, Right.MANAGE) as (session, member):
                project = session.get_one(Project, project_id)
                counts = import_items(session, project, records, path, by=member)
        except DatabaseFailed:
            raise
        except ValueError as error:  # the file is of our own making: say what is wrong in it, not where it lies
            raise Refused("bad-input", f"{str(error).replace(str(path), 'items')}.") from None
    if project.sure is not None and counts["answers"]:
        afterwards.add_task(refit, asker.database, project_id)
    return ImportedOut(**counts, lost=lost)


def read_sent(path: Path, name: str | None) -> tuple[list[Item], list[str]]:
    """The items of a file that was sent, in another tool's format if `name` says so, and what has no place in them."""
    with open(path, "rb") as stream:
        if stream.read(2) == b"\x1f\x8b":  # which could be a thousand times as long
            raise BadInput(f"{path}: gzipped; send it unzipped")
    return read_as(path, name)


@router.get("/formats")
def formats(asker: AnyAsker) -> list[FormatOut]:
    """Other tools' formats, which imports and the preview take."""
    return [FormatOut(name=name, about=about) for name, (_, about) in FORMATS.items()]


@router.get("/projects/{project_id}/items/{item_id}")
def item(project_id: Id, item_id: Id, asker: AnyAsker, response: Response) -> ItemOut:
    """One item."""
    with asker.reads(project_id, Right.REVIEW) as (session, member):
        project = session.get_one(Project, project_id)
        out = _item(service.item_of(session, project_id, item_id), asker.may(member, Right.MANAGE), project)
    say_version(response, out.version)
    return out


@router.patch("/projects/{project_id}/items/{item_id}")
def change(
    project_id: Id,
    item_id: Id,
    body: ItemChange,
    asker: AnyAsker,
    response: Response,
    if_match: Annotated[str | None, Header()] = None,
) -> ItemOut:
    """Change how urgent an item is, or how many answers it wants."""
    with asker.writes(project_id, Right.MANAGE) as (session, member):
        changed = service.change_item(session, project_id, item_id, body, version_of(if_match), by=member)
        out = _item(changed, True, session.get_one(Project, project_id))
    say_version(response, out.version)
    return out


@router.get("/projects/{project_id}/answers")
def answers(
    project_id: Id,
    asker: AnyAsker,
    item: Annotated[int | None, Field(ge=1, le=LARGEST_ID)] = None,
    rater: Annotated[str | None, Field(max_length=200, description="a pseudonym")] = None,
    newest: Annotated[bool, Field(description="the newest first")] = False,
    after: After = 0,
    limit: Limit = 50,
) -> AnswerPage:
    """The answers that stand, of the whole project, of one item or of one rater."""
    with asker.reads(project_id, Right.REVIEW) as (session, _):
        rows = service.answers_of(
            session, project_id, item=item, rater=rater, newest=newest, after=after, limit=limit + 1
        )
    out = [
        AnswerOut(
            **{name: getattr(answer, name) for name in AnswerOut.model_fields if hasattr(answer, name)}
            | {"item": answer.item_id},
            key=key,
            rater=member.pseudonym,
            rationale=text.rationale if text else None,
            edited=text.edited if text else None,
        )
        for answer, text, member, key in rows[:limit]
    ]
    return AnswerPage(answers=out, after=out[-1].id if len(rows) > limit else None)


@router.post(
    "/exports",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}, "description": "the preferences folder, zipped"}},
)
def export(body: ExportIn, asker: AnyAsker) -> Response:
    """A preferences folder of one or several projects, as a zip file. The same answers give the same bytes."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "preferences"
        with asker.writes(body.projects[0], Right.EXPORT) as (session, _):
            settle_splits(session, *_exported(session, asker, body.projects), person=asker.person_id)
        with asker.reads(body.projects[0], Right.EXPORT) as (session, _):
            rows = export_preferences(session, *_exported(session, asker, body.projects))
        write_preferences(folder, rows)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.iterdir()):
                archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes(), zipfile.ZIP_DEFLATED)
    headers = {"Content-Disposition": 'attachment; filename="preferences.zip"'}
    return Response(packed.getvalue(), media_type="application/zip", headers=headers)


@router.post(
    "/exports/judgements",
    response_class=Response,
    responses={
        200: {
            "content": {"application/x-ndjson": {}},
            "description": "a judgements file",
            "headers": {COUNTS: {"description": "JSON: what is in it, and left out", "schema": {"type": "string"}}},
        }
    },
)
def export_judgements(body: ExportIn, asker: AnyAsker) -> Response:
    """What the raters of one or several projects said of models: a line for each answer and each two responses whose
    models are known, as `align winrate` reads it. The same answers give the same bytes."""
    with asker.reads(body.projects[0], Right.EXPORT) as (session, _):
        found = judgements(session, *_exported(session, asker, body.projects))
    with asker.writes(body.projects[0], Right.EXPORT) as (session, _):
        note_judgements(session, *_exported(session, asker, body.projects), person=asker.person_id)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "judgements.jsonl"
        write_judgements(path, found.rows)
        written = path.read_bytes()
    headers = {
        "Content-Disposition": 'attachment; filename="judgements.jsonl"',
        COUNTS: dump_json(found.counts()),
    }
    return Response(written, media_type="application/x-ndjson", headers=headers)


def _exported(session: Session, asker: Asker, numbers: list[int]) -> list[Project]:
    """The projects, if in this transaction the asker may export each of them. Raises Refused."""
    for number in numbers:
        require(session, asker.person_id, number, Right.EXPORT)
    return [session.get_one(Project, number) for number in numbers]


def _item(counted: Counted, all_of_it: bool, project: Project) -> ItemOut:
    """Without `all_of_it` as raters see it: no models, no gold, the project's masks on."""
    item = counted.item
    responses = [response["messages"] for response in item.responses]
    if not all_of_it and project.mask:
        responses = [
            [{**turn, "content": mask_names(turn["content"], project.mask)[0]} for turn in turns] for turns in responses
        ]
    models = [response["model"] for response in item.responses]
    return ItemOut(
        id=item.id,
        key=item.key,
        prompt=item.prompt,
        responses=responses,
        models=models if all_of_it and any(models) else None,
        gold=item.gold if all_of_it else None,
        met=counted.met if all_of_it and item.gold else None,
        right=counted.right if all_of_it and item.gold else None,
        tags=item.tags,
        priority=item.priority,
        overlap=item.overlap,
        slots=counted.slots,
        filled=counted.filled,
        version=item.version,
    )
