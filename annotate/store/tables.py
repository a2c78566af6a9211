"""The tables. Times are Unix seconds (UTC) as floats; JSON columns hold records of preferences.contract.

What the database itself enforces: an item hands out each of its slots once (unique item, number), nobody is given an
item twice (unique item, member), a slot takes one answer (unique slot), an answer is superseded once and only by the
same rater's next revision (unique supersedes, foreign key), a submission is stored once (unique item, member, key),
and answers and audit entries are append-only (triggers in the migration). `version` counts the changes of a row, for
ETags.
"""

from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
    }
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Project(Base):
    """One annotation campaign. `validation` and `test` are shares of the items, the rest trains.

    `gold_rate` is the share of gold items among what a qualified rater is given; `qualify` how many gold items a rater
    must pass before real ones; `skills` the tags whose items go only to raters with that skill; `warnings` {tag: text
    of a content warning}, whose items raters may opt out of; `consent` what raters must agree to first.

    What an answer says beyond the ranking: `dimensions` [{name, anchors: a text for each step from 1, "" for none}] to
    rate each response on, `all_bad`, `rationale` (off, optional, required), `edit` (rewrite the best), `spans` (mark
    passages). `mask`: names that are hidden in responses. `practice`: how many gold items a new rater sees with the
    right answer first. `pay`: {amount, currency, per: hour or answer}. `arena`: names of the models that raters chat
    with, instead of imported items.

    `sure`: from which certainty on, 0.5 to 1, an item is asked about no more (services/sure.py); null: never. `fit` are
    the parameters of the consensus model that go with it, as last fitted. `hold_back`: the disagreement, 0 to 1, above
    which an item that nobody has decided stays out of exports; null: none does.
    """

    __tablename__ = "projects"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    overlap: Mapped[int]
    strength: Mapped[bool]
    validation: Mapped[float]
    test: Mapped[float]
    simulated: Mapped[bool]
    created_at: Mapped[float]
    closed_at: Mapped[float | None]
    gold_rate: Mapped[float] = mapped_column(default=0.1)
    qualify: Mapped[int] = mapped_column(default=0)
    skills: Mapped[list[Any]] = mapped_column(default=list)
    warnings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    consent: Mapped[str | None] = mapped_column(Text)
    dimensions: Mapped[list[Any]] = mapped_column(default=list)
    all_bad: Mapped[bool] = mapped_column(default=False)
    rationale: Mapped[str] = mapped_column(String(8), default="off")
    edit: Mapped[bool] = mapped_column(default=False)
    spans: Mapped[bool] = mapped_column(default=False)
    mask: Mapped[list[Any]] = mapped_column(default=list)
    practice: Mapped[int] = mapped_column(default=0)
    pay: Mapped[dict[str, Any] | None]
    arena: Mapped[list[Any]] = mapped_column(default=list)
    sure: Mapped[float | None]
    hold_back: Mapped[float | None]
    fit: Mapped[dict[str, Any] | None]
    version: Mapped[int] = mapped_column(default=1)


class Guideline(Base):
    """A version of what raters must read first, as Markdown. Versions count from 1."""

    __tablename__ = "guidelines"
    __table_args__ = (UniqueConstraint("project_id", "version"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    version: Mapped[int]
    text: Mapped[str] = mapped_column(Text)


class Person(Base):
    """Somebody who can log in. `openid` is "issuer subject" of an OpenID Connect login; without a password the hash is
    empty. `language` is the one that they chose for the pages, null for their browser's."""

    __tablename__ = "people"
    __table_args__ = (
        Index(None, "openid", unique=True),
        {"sqlite_autoincrement": True},  # audit entries keep the id of who was erased: nobody else may get it
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    login: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str | None] = mapped_column(String(200))
    password_hash: Mapped[str] = mapped_column(String(200))
    openid: Mapped[str | None] = mapped_column(Text)
    language: Mapped[str | None] = mapped_column(String(8))
    created_at: Mapped[float]


class Member(Base):
    """A person's part in a project, or a rater that an import names (then `person_id` is null).

    `rater` is the login or the imported id: personal data, shown to owners only. Exports say `pseudonym`.
    `guideline` is the version that this member has read, `consent_hash` the SHA-256 of the consent that they gave.
    `training_since` is when an owner sent them back to training. `skills` are tags that they can rate, `opted_out`
    tags with a warning that they don't want to see. Who has `removed_at` is out; erasing a member also cuts `person_id`
    and makes a new pseudonym. `reliability` is the last fit's, where the project stops asking (services/sure.py).
    """

    __tablename__ = "members"
    __table_args__ = (
        UniqueConstraint("project_id", "rater"),
        UniqueConstraint("project_id", "pseudonym"),
        UniqueConstraint("project_id", "person_id"),
        CheckConstraint("role IN ('rater', 'reviewer', 'owner')", name="role"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    person_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
    rater: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(String(8))
    pseudonym: Mapped[str] = mapped_column(String(40))
    guideline: Mapped[int | None]
    skills: Mapped[list[Any]] = mapped_column(default=list)
    opted_out: Mapped[list[Any]] = mapped_column(default=list)
    qualified_at: Mapped[float | None]
    training_since: Mapped[float | None]
    consented_at: Mapped[float | None]
    consent_hash: Mapped[str | None] = mapped_column(String(64))
    removed_at: Mapped[float | None]
    reliability: Mapped[float | None]
    version: Mapped[int] = mapped_column(default=1)


class Group(Base):
    """What must stay on one side of a split. `split` is null until the first export of one of its items.

    `joined_id` is the group that this one has become part of, because they share a prompt; it has no items then.
    """

    __tablename__ = "groups"
    __table_args__ = (UniqueConstraint("project_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(Text)
    split: Mapped[str | None] = mapped_column(String(10))
    joined_id: Mapped[int | None] = mapped_column(ForeignKey("groups.id"), index=True)


class Item(Base):
    """A prompt with its responses. `key` is the id that the import gave; `prompt_hash` is of the normalised prompt.

    `gold` are the known ranks of an item that checks raters: it has no slots, and every rater may be given it;
    `explanation` says why they are right.
    """

    __tablename__ = "items"
    __table_args__ = (
        UniqueConstraint("project_id", "key"),
        Index(None, "project_id", "prompt_hash"),
        Index(
            "ix_items_gold",
            "project_id",
            sqlite_where=text("gold IS NOT NULL"),
            postgresql_where=text("gold IS NOT NULL"),
        ),
        Index(None, "project_id", "priority", "id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    group_id: Mapped[int] = mapped_column(ForeignKey("groups.id"), index=True)
    key: Mapped[str] = mapped_column(Text)
    prompt: Mapped[list[Any]]
    responses: Mapped[list[Any]]
    tags: Mapped[list[Any]]
    gold: Mapped[list[Any] | None]
    explanation: Mapped[str | None] = mapped_column(Text)
    priority: Mapped[float]
    overlap: Mapped[int]
    content_hash: Mapped[str] = mapped_column(String(64))
    prompt_hash: Mapped[str] = mapped_column(String(64))
    version: Mapped[int] = mapped_column(default=1)


class ItemTag(Base):
    """A tag of an item once more, where a query can find it."""

    __tablename__ = "item_tags"
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
    tag: Mapped[str] = mapped_column(Text, primary_key=True)


class Assignment(Base):
    """That a rater was given an item, and `shown`: the order of the responses on the screen. It outlives its lease.

    `purpose`: "item" (takes a slot), "gold" (a check among real items) or "training" (before real items).
    `state`: "open", then "answered" or "skipped".
    """

    __tablename__ = "assignments"
    __table_args__ = (
        UniqueConstraint("item_id", "member_id"),
        CheckConstraint("purpose IN ('item', 'gold', 'training')", name="purpose"),
        CheckConstraint("state IN ('open', 'answered', 'skipped')", name="state"),
        Index(None, "member_id", "state"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    member_id: Mapped[int] = mapped_column(ForeignKey("members.id"))
    purpose: Mapped[str] = mapped_column(String(8), default="item")
    state: Mapped[str] = mapped_column(String(8), default="open")
    shown: Mapped[list[Any]]
    created_at: Mapped[float]


class Slot(Base):
    """One of the answers that an item wants. It is free when it is not filled and no lease of it still runs.

    `filled` says that an answer has it; then it has that answer's assignment, and no lease. `project_id`, `position`
    (minus the item's priority) and `turn` are the item's, for the index that finds the next free slot. Items of one
    priority take turns in the order of import; where the project stops asking, the surer one comes later
    (services/sure.py).
    """

    __tablename__ = "slots"
    __table_args__ = (
        UniqueConstraint("item_id", "number"),
        CheckConstraint("NOT filled OR leased_until IS NULL", name="filled"),
        Index(None, "project_id", "filled", "position", "turn", "item_id", "number"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    number: Mapped[int]
    position: Mapped[float]
    turn: Mapped[float]
    filled: Mapped[bool] = mapped_column(default=False)
    assignment_id: Mapped[int | None] = mapped_column(ForeignKey("assignments.id"), unique=True)
    leased_until: Mapped[float | None]


class Answer(Base):
    """What a rater submitted, ranks in import order; append-only.

    `kind`: "rated" fills a slot; "surplus" came when none was left (paid, not counted); "gold" and "training" check the
    rater; "imported" was given elsewhere. A revision (2, 3, …) supersedes the answer before it and inherits its kind;
    the slot stays the first one's. `idempotency_key` makes submitting twice store once. `spans` are passages
    marked good or bad, as preferences.contract.Span.
    """

    __tablename__ = "answers"
    __table_args__ = (
        UniqueConstraint("item_id", "member_id", "revision"),
        UniqueConstraint("item_id", "member_id", "idempotency_key"),
        UniqueConstraint("id", "item_id", "member_id"),
        ForeignKeyConstraint(
            ["supersedes_id", "item_id", "member_id"], ["answers.id", "answers.item_id", "answers.member_id"]
        ),
        CheckConstraint("kind IN ('rated', 'surplus', 'gold', 'training', 'imported')", name="kind"),
        CheckConstraint("(kind = 'rated' AND revision = 1) = (slot_id IS NOT NULL)", name="slot"),
        CheckConstraint("(revision = 1) = (supersedes_id IS NULL)", name="revision"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    member_id: Mapped[int] = mapped_column(ForeignKey("members.id"), index=True)
    slot_id: Mapped[int | None] = mapped_column(ForeignKey("slots.id"), unique=True)
    revision: Mapped[int] = mapped_column(default=1)
    supersedes_id: Mapped[int | None] = mapped_column(unique=True)
    kind: Mapped[str] = mapped_column(String(8))
    idempotency_key: Mapped[str | None] = mapped_column(String(80))
    ranks: Mapped[list[Any]]
    strength: Mapped[int | None]
    ratings: Mapped[dict[str, Any] | None]
    flags: Mapped[list[Any]]
    spans: Mapped[list[Any] | None]
    shown: Mapped[list[Any] | None]
    seconds: Mapped[float | None]
    guideline: Mapped[int | None]
    app_version: Mapped[str | None] = mapped_column(String(40))
    submitted_at: Mapped[float | None]


class AnswerText(Base):
    """The free text of an answer: apart from it, since erasing a rater deletes the text and keeps the ranks."""

    __tablename__ = "answer_texts"
    answer_id: Mapped[int] = mapped_column(ForeignKey("answers.id"), primary_key=True)
    rationale: Mapped[str | None] = mapped_column(Text)
    edited: Mapped[dict[str, Any] | None]


class Draft(Base):
    """What a rater has filled in and not submitted, as the page keeps it."""

    __tablename__ = "drafts"
    assignment_id: Mapped[int] = mapped_column(ForeignKey("assignments.id"), primary_key=True)
    body: Mapped[dict[str, Any]]
    version: Mapped[int]
    saved_at: Mapped[float]


class Skip(Base):
    """That a rater passed an item on, and why; they are not given it again. `text` is free text."""

    __tablename__ = "skips"
    __table_args__ = (
        UniqueConstraint("item_id", "member_id"),
        CheckConstraint("reason IN ('unsafe', 'broken', 'pii', 'cannot-judge', 'other')", name="reason"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    member_id: Mapped[int] = mapped_column(ForeignKey("members.id"), index=True)
    reason: Mapped[str] = mapped_column(String(12))
    text: Mapped[str | None] = mapped_column(Text)
    at: Mapped[float]


class Decision(Base):
    """What a reviewer or an owner decided about an item, without having seen the votes; the newest one stands.

    Ranks are in import order; `shown` is the order on their screen. `rationale` is free text.
    """

    __tablename__ = "decisions"
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), index=True)
    member_id: Mapped[int] = mapped_column(ForeignKey("members.id"), index=True)
    ranks: Mapped[list[Any]]
    strength: Mapped[int | None]
    rationale: Mapped[str | None] = mapped_column(Text)
    shown: Mapped[list[Any]]
    at: Mapped[float]


class Question(Base):
    """What a rater asks the owners about an item, and the reply. `read_at`: when the rater saw the reply."""

    __tablename__ = "questions"
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), index=True)
    member_id: Mapped[int] = mapped_column(ForeignKey("members.id"), index=True)
    text: Mapped[str] = mapped_column(Text)
    asked_at: Mapped[float]
    reply: Mapped[str | None] = mapped_column(Text)
    replied_by: Mapped[int | None] = mapped_column(ForeignKey("members.id"))
    replied_at: Mapped[float | None]
    read_at: Mapped[float | None]


class Chat(Base):
    """A rater's conversation with two hidden models. `models` are their names, in the order on the screen.

    `turns` is a list of {user, replies: [text or null, text or null]}. The vote makes an item of it.
    """

    __tablename__ = "chats"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    member_id: Mapped[int] = mapped_column(ForeignKey("members.id"), index=True)
    models: Mapped[list[Any]]
    turns: Mapped[list[Any]]
    item_id: Mapped[int | None] = mapped_column(ForeignKey("items.id"), unique=True)
    created_at: Mapped[float]
    updated_at: Mapped[float]


class Audit(Base):
    """Who did what, when; append-only. `member_id` and `person_id` are null for what was done at the command line.

    It names nobody: ids stay when a person is erased, so that the entries need not change.
    """

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int | None] = mapped_column(ForeignKey("projects.id"))
    member_id: Mapped[int | None] = mapped_column(ForeignKey("members.id"))
    person_id: Mapped[int | None]
    at: Mapped[float]
    action: Mapped[str] = mapped_column(String(40))
    detail: Mapped[dict[str, Any]]
