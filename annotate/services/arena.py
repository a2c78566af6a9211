"""The arena: a rater's chats with two hidden models, and the vote that makes an item with an answer of each.

A chat is stored turn by turn. While a turn is being written it is held until `until`, and no transaction is open. What
models say goes in by side, 0 for the left one; which model is on which side is drawn once, and told after the vote.
"""

import secrets
import time
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import combinations
from typing import NamedTuple

from sqlalchemy import exists, insert, select
from sqlalchemy.orm import Session

from annotate.services.answers import Receipt, Shown, in_import_order, submit
from annotate.services.assignment import lock_member
from annotate.services.exchange import import_items
from annotate.services.projects import comes_first, lock_project, note
from annotate.services.refusals import Refused
from annotate.store.tables import Answer, Assignment, Chat, Item, Member, Project
from preferences import contract

MOST_TURNS = 20
MOST_TEXT = 8000  # characters of what a rater says in one turn
HELD = 330.0  # seconds for which a turn that is being written is left alone; longer than a reply may take
_random = secrets.SystemRandom()


class Turn(NamedTuple):
    """What the rater said, and both replies as far as they are whole."""

    user: str
    replies: tuple[str | None, str | None]
    until: float  # when who writes it has given up at the latest; 0 when nobody does

    @property
    def whole(self) -> bool:
        return None not in self.replies

    def waits(self, now: float) -> bool:
        return not self.whole and self.until > now


class Begun(NamedTuple):
    """A turn that is to be written: what each side has said before, and which sides are missing."""

    models: tuple[str, str]
    conversations: tuple[list[dict[str, str]], list[dict[str, str]]]
    replies: tuple[str | None, str | None]
    mask: list[str]


class Voted(NamedTuple):
    receipt: Receipt
    models: list[str]


def open_chat(session: Session, member: Member, project: Project, served: Collection[str], *, fresh: bool) -> Chat:
    """This rater's newest chat that has no vote yet, or a new one: where there is none, or they want a `fresh` one.

    `served` are the models that this server knows. Raises Refused where the project has no arena, or not here.
    """
    lock_member(session, member)
    _check(session, project, member, served)
    newest = select(Chat).where(Chat.member_id == member.id, Chat.item_id.is_(None)).order_by(Chat.id.desc())
    chat = session.scalars(newest.limit(1)).first()
    if chat is not None and set(chat.models) <= set(project.arena) and not (fresh and chat.turns):
        return chat
    now = time.time()
    models = _drawn(session, project)
    chat = Chat(project_id=project.id, member_id=member.id, models=models, turns=[], created_at=now, updated_at=now)
    session.add(chat)
    session.flush()
    note(session, "chat begun", project=project.id, member=member.id, chat=chat.id)
    return chat


def chat_of(session: Session, member: Member, chat_id: int, *, lock: bool = False) -> Chat:
    """A chat of this rater, with `lock` to be changed. Raises Refused "not-found" for one of somebody else, too."""
    chat = session.get(Chat, chat_id, with_for_update=lock, populate_existing=True)
    if chat is None or chat.member_id != member.id:
        raise Refused("not-found", "You have no such chat.")
    return chat


def turns_of(chat: Chat) -> list[Turn]:
    return [Turn(one["user"], (one["replies"][0], one["replies"][1]), one.get("until", 0.0)) for one in chat.turns]


def begin_turn(
    session: Session,
    member: Member,
    project: Project,
    chat_id: int,
    number: int,
    text: str,
    served: Collection[str],
    *,
    now: float | None = None,
) -> Begun:
    """Hold the turn of that number (from 0) to be written: a new one, or one of which a reply is missing.

    The same again, when both replies are there, holds nothing. Raises Refused "still-writing" where it is held.
    """
    now = time.time() if now is None else now
    lock_member(session, member)
    _check(session, project, member, served)
    chat = chat_of(session, member, chat_id, lock=True)
    if chat.item_id is not None:
        raise Refused("already-answered", "You have voted on this chat, so it can't go on; begin a new one.")
    if not text.strip() or "\0" in text:
        raise Refused("bad-input", "text: say something, without NUL characters.")
    turns = turns_of(chat)
    if number < len(turns):
        if number != len(turns) - 1 or turns[number].user != text:
            raise Refused("key-reused", "This chat has gone on in another window; reload the page.")
        if turns[number].waits(now):
            wait = round(turns[number].until - now, 1)
            raise Refused("still-writing", "The models are at work on this turn.", retry_after=wait)
    else:
        if number > len(turns) or (turns and not turns[-1].whole):
            raise Refused("wrong-version", "This chat stands elsewhere by now; reload the page.", version=len(turns))
        if number >= MOST_TURNS:
            raise Refused("does-not-fit", f"A chat has at most {MOST_TURNS} turns; vote, and begin a new one.")
        turns.append(Turn(text, (None, None), 0.0))
        note(session, "chat turn", project=project.id, member=member.id, chat=chat.id, turn=number)
    last = turns[-1]
    if not last.whole:
        turns[-1] = last._replace(until=now + HELD)
        _store(chat, turns, now)
    said: tuple[list[dict[str, str]], list[dict[str, str]]] = ([], [])
    for side, conversation in enumerate(said):
        for turn in turns[:-1]:
            conversation += _messages(turn, side)
        conversation.append({"role": "user", "content": last.user})
    return Begun((chat.models[0], chat.models[1]), said, last.replies, project.mask)


def keep_reply(session: Session, chat_id: int, number: int, side: int, text: str) -> None:
    """Store one side's whole reply."""
    chat = session.get(Chat, chat_id, with_for_update=True, populate_existing=True)
    if chat is None or number >= len(chat.turns):
        return  # erased in the meantime
    turns = turns_of(chat)
    replies = list(turns[number].replies)
    replies[side] = text
    turns[number] = turns[number]._replace(replies=(replies[0], replies[1]))
    _store(chat, turns, time.time())


def let_go(session: Session, chat_id: int, number: int) -> None:
    """Nobody writes this turn any more; a reply that is missing can be asked for again."""
    chat = session.get(Chat, chat_id, with_for_update=True, populate_existing=True)
    if chat is None or number >= len(chat.turns):
        return
    turns = turns_of(chat)
    turns[number] = turns[number]._replace(until=0.0)
    _store(chat, turns, time.time())


def vote(
    session: Session,
    member: Member,
    project: Project,
    chat_id: int,
    given: Shown,
    *,
    key: str,
    now: float | None = None,
) -> Voted:
    """Make an item of the chat's whole turns and store this rater's answer to it; only then the models are told.

    The item's responses stand as on the screen. The same vote with the same `key` again returns the first receipt.
    """
    now = time.time() if now is None else now
    lock_project(session, project)  # before the member, as whoever changes the project does
    lock_member(session, member)
    chat = chat_of(session, member, chat_id, lock=True)
    answer = in_import_order((0, 1), given)
    if chat.item_id is None:
        turns = turns_of(chat)
        if turns and turns[-1].waits(now):
            raise Refused("still-writing", "Wait until both have answered, or stop them, then vote.")
        whole = [turn for turn in turns if turn.whole]
        if not whole:
            raise Refused("does-not-fit", "There is nothing to vote on yet: neither model has answered.")
        chat.item_id = _make_item(session, member, project, chat, whole)
        chat.updated_at = now
        assigned = {"item_id": chat.item_id, "member_id": member.id, "shown": [0, 1], "created_at": now}
        session.execute(insert(Assignment).values(**assigned, purpose="item", state="open"))
        session.flush()
    elif not _is_again(session, chat, member, key):
        raise Refused("already-answered", "You have voted on this chat and seen the models, so the vote stays.")
    query = select(Assignment.id).where(Assignment.item_id == chat.item_id, Assignment.member_id == member.id)
    receipt = submit(
        session, member, project, session.scalars(query).one(), answer, key=key, guideline=member.guideline, now=now
    )
    return Voted(receipt, list(chat.models))


# --- inside ------------------------------------------------------------------------------------------------------


def _check(session: Session, project: Project, member: Member, served: Collection[str]) -> None:
    if not project.arena:
        raise Refused("not-found", "This project has no arena.")
    if project.closed_at is not None:
        raise Refused("project-closed", "This project is closed.")
    if first := comes_first(session, project, member):
        raise first
    if len(set(project.arena)) < 2 or not set(project.arena) <= set(served):
        raise Refused(
            "no-models",
            "The models of this project are not set up on this server. Its owner can mend that; nothing is lost.",
        )


def _drawn(session: Session, project: Project) -> list[str]:
    """Two models, left and right: a pair that this project has had least, and a coin for the sides.

    The sides are not balanced any further: who has seen one reveal could tell the next one.
    """
    had = Counter(frozenset(models) for models in session.scalars(select(Chat.models).filter_by(project_id=project.id)))
    pairs = [frozenset(pair) for pair in combinations(sorted(set(project.arena)), 2)]
    least = min(had[pair] for pair in pairs)
    models = sorted(_random.choice([pair for pair in pairs if had[pair] == least]))
    _random.shuffle(models)
    return models


def _messages(turn: Turn, side: int) -> list[dict[str, str]]:
    reply = turn.replies[side]
    assert reply is not None
    return [{"role": "user", "content": turn.user}, {"role": "assistant", "content": reply}]


def _store(chat: Chat, turns: Sequence[Turn], now: float) -> None:
    chat.turns = [
        {"user": turn.user, "replies": list(turn.replies)} | ({"until": turn.until} if turn.until else {})
        for turn in turns
    ]
    chat.updated_at = now


def _make_item(session: Session, member: Member, project: Project, chat: Chat, turns: Sequence[Turn]) -> int:
    """The first thing that the rater said is the prompt; each response is all that followed it on one side."""
    key = f"chat-{chat.id}"
    while session.scalar(select(exists().where(Item.project_id == project.id, Item.key == key))):
        key += "+"  # an import has brought an item of that name from elsewhere
    responses = [
        {"messages": [one for turn in turns for one in _messages(turn, side)][1:], "model": model}
        for side, model in enumerate(chat.models)
    ]
    record = contract.validate(
        contract.Item, {"id": key, "prompt": turns[0].user, "responses": responses, "overlap": 1}, key
    )
    import_items(session, project, [record], key, by=member, near=False)  # what was said before may be a great deal
    made = session.scalar(select(Item.id).where(Item.project_id == project.id, Item.key == key))
    assert made is not None
    return made


def _is_again(session: Session, chat: Chat, member: Member, key: str) -> bool:
    mine = exists().where(Answer.item_id == chat.item_id, Answer.member_id == member.id, Answer.idempotency_key == key)
    return bool(session.scalar(select(mine)))
