"""The arena: chat with two models without knowing which they are, vote, and only then hear their names."""

from typing import Annotated, Any, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from annotate.api.limits import Bucket
from annotate.api.live import Arena
from annotate.api.problems import PROBLEMS
from annotate.api.render import to_html
from annotate.api.security import AnyAsker
from annotate.api.shapes import Id, Strict
from annotate.api.work import LONGEST_TEXT, FlagName, Key, ReceiptOut
from annotate.services.answers import Shown
from annotate.services.arena import (
    MOST_TEXT,
    MOST_TURNS,
    Begun,
    begin_turn,
    chat_of,
    open_chat,
    turns_of,
    vote,
)
from annotate.services.masks import mask_names
from annotate.services.projects import Dimension
from annotate.services.refusals import Refused
from annotate.services.rights import Right
from annotate.store.tables import Answer, Chat, Project

router = APIRouter(prefix="/api/v1/projects/{project_id}/chats", tags=["arena"], responses=PROBLEMS)
TURNS = Bucket(rate=0.2, burst=10)  # of one person: what models write costs money, or a machine's time


class ChatIn(Strict):
    fresh: bool = Field(default=False, description="a new chat, though there is one without a vote")


class TurnOut(BaseModel):
    text: str
    replies: list[str | None] = Field(description="as safe HTML, left and right; null for one that is missing")


class Revealed(BaseModel):
    models: list[str] = Field(description="left and right")
    ranks: list[int]
    strength: int | None


class ChatOut(BaseModel):
    """A chat as its rater sees it; nothing in it tells which model is which before the vote."""

    chat: int
    turns: list[TurnOut]
    most_turns: int
    most_text: int = Field(description="characters of one turn")
    strength: bool = Field(description="whether to ask how much better")
    all_bad: bool
    rationale: Literal["off", "optional", "required"]
    dimensions: list[Dimension]
    revealed: Revealed | None = Field(description="after the vote")


class TurnIn(Strict):
    turn: Annotated[
        int, Field(ge=0, le=1000, description="its number, from 0; the same again asks for what is missing")
    ]
    text: Annotated[str, Field(min_length=1, max_length=MOST_TEXT)]


class StoppedOut(BaseModel):
    stopped: bool = Field(description="false where nothing was being written, or another server process writes it")


class VoteIn(Strict):
    key: Key
    strength: Annotated[int, Field(ge=-3, le=3, description="below 0 the left one is better; 0 is a tie")]
    ratings: dict[str, list[Annotated[float, Field(allow_inf_nan=False)]]] | None = Field(default=None, max_length=20)
    flags: list[FlagName] = Field(default=[], max_length=5)
    rationale: Annotated[str, Field(max_length=LONGEST_TEXT)] | None = None
    seconds: Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)] | None = None


class VotedOut(BaseModel):
    receipt: ReceiptOut
    models: list[str] = Field(description="left and right")


@router.post("")
def begin(project_id: Id, body: ChatIn, request: Request, asker: AnyAsker) -> ChatOut:
    """This rater's chat that has no vote yet, or a new one with two models drawn at random."""
    with asker.writes(project_id, Right.RATE) as (session, member):
        project = session.get_one(Project, project_id)
        chat = open_chat(session, member, project, _arena(request).models, fresh=body.fresh)
    return _out(project, chat, None)


@router.get("/{chat_id}")
def read(project_id: Id, chat_id: Id, asker: AnyAsker) -> ChatOut:
    """A chat of one's own, as far as it is stored."""
    with asker.reads(project_id, Right.RATE) as (session, member):
        project = session.get_one(Project, project_id)
        chat = chat_of(session, member, chat_id)
        revealed = _revealed(session, chat)
    return _out(project, chat, revealed)


@router.post(
    "/{chat_id}/turns",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "{side, delta}, {side, end, html}, {done, whole}"}
    },
)
async def turn(project_id: Id, chat_id: Id, body: TurnIn, request: Request, asker: AnyAsker) -> StreamingResponse:
    """Say something to both models, and hear both replies as they come.

    Sent again with the same number and text, it goes on listening, or asks again for a reply that is missing.
    """
    arena = _arena(request)

    def start() -> Begun:
        with asker.writes(project_id, Right.RATE) as (session, member):
            project = session.get_one(Project, project_id)
            return begin_turn(session, member, project, chat_id, body.turn, body.text, arena.models)

    def is_own() -> None:
        with asker.reads(project_id, Right.RATE) as (session, member):
            chat_of(session, member, chat_id)

    await run_sync(is_own)
    writing = arena.writing.get(chat_id)
    if writing is None or writing.number != body.turn:
        TURNS.count(asker.person_id)
        try:
            with arena.room(asker.person_id):
                begun = await run_sync(start)
        except Refused as error:
            writing = arena.writing.get(chat_id)  # begun by another request in the meantime
            if error.rule != "still-writing" or writing is None:
                raise
        else:
            writing = arena.start(asker.person_id, chat_id, body.turn, begun)
    return StreamingResponse(writing.follow(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


@router.post("/{chat_id}/stop")
async def stop(project_id: Id, chat_id: Id, request: Request, asker: AnyAsker) -> StoppedOut:
    """Enough: what is shown of both replies by now is all of them."""

    def is_own() -> None:
        with asker.reads(project_id, Right.RATE) as (session, member):
            chat_of(session, member, chat_id)

    await run_sync(is_own)
    writing = _arena(request).writing.get(chat_id)
    if writing is not None:
        writing.stopped = True
    return StoppedOut(stopped=writing is not None)


@router.post("/{chat_id}/vote")
def say_which(project_id: Id, chat_id: Id, body: VoteIn, asker: AnyAsker) -> VotedOut:
    """Store which is better, which ends the chat, and hear which model was which. It can't be changed afterwards."""
    ranks = [1, 2] if body.strength < 0 else [2, 1] if body.strength > 0 else [1, 1]
    with asker.writes(project_id, Right.RATE) as (session, member):
        project = session.get_one(Project, project_id)
        shown = Shown(
            ranks=ranks,
            strength=body.strength if project.strength else None,
            ratings=body.ratings,
            flags=body.flags,
            rationale=body.rationale,
            seconds=body.seconds,
        )
        voted = vote(session, member, project, chat_id, shown, key=body.key)
    receipt = voted.receipt
    told = ReceiptOut(answer=receipt.answer, revision=receipt.revision, surplus=receipt.surplus, feedback=None)
    return VotedOut(receipt=told, models=voted.models)


# --- inside ------------------------------------------------------------------------------------------------------


def _arena(request: Request) -> Arena:
    arena: Arena = request.app.state.arena
    return arena


def _out(project: Project, chat: Chat, revealed: Revealed | None) -> ChatOut:
    def html(reply: str | None) -> str | None:
        return None if reply is None else to_html(mask_names(reply, project.mask)[0])

    settings: dict[str, Any] = {
        name: getattr(project, name) for name in ("strength", "all_bad", "rationale", "dimensions")
    }
    return ChatOut(
        chat=chat.id,
        turns=[TurnOut(text=turn.user, replies=[html(reply) for reply in turn.replies]) for turn in turns_of(chat)],
        most_turns=MOST_TURNS,
        most_text=MOST_TEXT,
        revealed=revealed,
        **settings,
    )


def _revealed(session: Session, chat: Chat) -> Revealed | None:
    """Which model was which, and what the rater said of them; None before the vote."""
    if chat.item_id is None:
        return None
    query = select(Answer).where(Answer.item_id == chat.item_id, Answer.member_id == chat.member_id)
    answer = session.scalars(query.order_by(Answer.revision.desc()).limit(1)).one()
    return Revealed(models=chat.models, ranks=answer.ranks, strength=answer.strength)
