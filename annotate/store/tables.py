"""The tables. Times are Unix seconds (UTC) as floats; JSON columns hold records of preferences.contract.

What the database itself enforces: an item hands out each of its slots once (unique item, number), nobody holds or
answers an item twice (unique item, member), a slot takes one answer (unique slot), and answers and audit entries
are append-only (triggers in the migration).
"""

from typing import Any, ClassVar

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, MetaData, String, Text, UniqueConstraint
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
    """One annotation campaign. `validation` and `test` are shares of the items, the rest trains."""

    __tablename__ = "projects"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    overlap: Mapped[int]
    strength: Mapped[bool]
    validation: Mapped[float]
    test: Mapped[float]
    simulated: Mapped[bool]
    created_at: Mapped[float]


class Guideline(Base):
    """A version of what raters must read first, as Markdown. Versions count from 1."""

    __tablename__ = "guidelines"
    __table_args__ = (UniqueConstraint("project_id", "version"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    version: Mapped[int]
    text: Mapped[str] = mapped_column(Text)


class Person(Base):
    """Somebody who can log in."""

    __tablename__ = "people"
    id: Mapped[int] = mapped_column(primary_key=True)
    login: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str | None] = mapped_column(String(200))
    password_hash: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[float]


class Member(Base):
    """A person's part in a project, or a rater that an import names (then `person_id` is null).

    `rater` is the login or the imported id: personal data, shown to owners only. Exports say `pseudonym`.
    `guideline` is the version that this member has read.
    """

    __tablename__ = "members"
    __table_args__ = (
        UniqueConstraint("project_id", "rater"),
        UniqueConstraint("project_id", "pseudonym"),
        UniqueConstraint("project_id", "person_id"),
        CheckConstraint("role IN ('rater', 'owner')", name="role"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    person_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
    rater: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(String(8))
    pseudonym: Mapped[str] = mapped_column(String(40))
    guideline: Mapped[int | None]


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
    joined_id: Mapped[int | None] = mapped_column(ForeignKey("groups.id"))


class Item(Base):
    """A prompt with its responses. `key` is the id that the import gave; `prompt_hash` is of the normalised prompt."""

    __tablename__ = "items"
    __table_args__ = (
        UniqueConstraint("project_id", "key"),
        Index(None, "project_id", "prompt_hash"),
        Index(None, "project_id", "priority", "id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    group_id: Mapped[int] = mapped_column(ForeignKey("groups.id"))
    key: Mapped[str] = mapped_column(Text)
    prompt: Mapped[list[Any]]
    responses: Mapped[list[Any]]
    tags: Mapped[list[Any]]
    gold: Mapped[list[Any] | None]
    priority: Mapped[float]
    content_hash: Mapped[str] = mapped_column(String(64))
    prompt_hash: Mapped[str] = mapped_column(String(64))


class Assignment(Base):
    """That a rater was given an item, and `shown`: the order of the responses on his screen. It outlives its lease."""

    __tablename__ = "assignments"
    __table_args__ = (UniqueConstraint("item_id", "member_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    member_id: Mapped[int] = mapped_column(ForeignKey("members.id"), index=True)
    shown: Mapped[list[Any]]
    created_at: Mapped[float]


class Slot(Base):
    """One of the answers that an item wants. It is free when it has no answer and no lease that still runs; with an
    answer it has the assignment, and no lease."""

    __tablename__ = "slots"
    __table_args__ = (UniqueConstraint("item_id", "number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    number: Mapped[int]
    assignment_id: Mapped[int | None] = mapped_column(ForeignKey("assignments.id"), unique=True)
    leased_until: Mapped[float | None]


class Answer(Base):
    """What a rater submitted, ranks in import order; append-only.

    `kind`: "rated" fills a slot, "surplus" came when none was left (paid, not counted), "imported" was given elsewhere.
    `idempotency_key` makes submitting twice store once.
    """

    __tablename__ = "answers"
    __table_args__ = (
        UniqueConstraint("item_id", "member_id"),
        CheckConstraint("kind IN ('rated', 'surplus', 'imported')", name="kind"),
        CheckConstraint("(kind = 'rated') = (slot_id IS NOT NULL)", name="slot"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"))
    member_id: Mapped[int] = mapped_column(ForeignKey("members.id"), index=True)
    slot_id: Mapped[int | None] = mapped_column(ForeignKey("slots.id"), unique=True)
    kind: Mapped[str] = mapped_column(String(8))
    idempotency_key: Mapped[str | None] = mapped_column(String(80))
    ranks: Mapped[list[Any]]
    strength: Mapped[int | None]
    ratings: Mapped[dict[str, Any] | None]
    flags: Mapped[list[Any]]
    rationale: Mapped[str | None] = mapped_column(Text)
    edited: Mapped[dict[str, Any] | None]
    shown: Mapped[list[Any] | None]
    seconds: Mapped[float | None]
    guideline: Mapped[int | None]
    submitted_at: Mapped[float | None]


class Audit(Base):
    """Who did what, when; append-only. `member_id` is null for what was done at the command line."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int | None] = mapped_column(ForeignKey("projects.id"))
    member_id: Mapped[int | None] = mapped_column(ForeignKey("members.id"))
    at: Mapped[float]
    action: Mapped[str] = mapped_column(String(40))
    detail: Mapped[dict[str, Any]]


class Login(Base):
    """A login session: the browser holds a random token, we hold its SHA-256."""

    __tablename__ = "logins"
    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    csrf_token: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[float]


class FailedLogin(Base):
    """A login attempt that failed, counted by the throttle."""

    __tablename__ = "failed_logins"
    __table_args__ = (Index(None, "login", "at"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    login: Mapped[str] = mapped_column(String(64))
    at: Mapped[float]
