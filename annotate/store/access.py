"""The tables of the service around the work: logins, tokens and links, settings, webhooks. Times are Unix seconds."""

from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from annotate.store.tables import Base


class Login(Base):
    """A login session: the browser holds a random token, we hold its SHA-256."""

    __tablename__ = "logins"
    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    csrf_token: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[float]
    expires_at: Mapped[float]


class FailedLogin(Base):
    """A login attempt that failed, counted by the throttle."""

    __tablename__ = "failed_logins"
    __table_args__ = (Index(None, "login", "at"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    login: Mapped[str] = mapped_column(String(64))
    at: Mapped[float]


class Token(Base):
    """A personal API token: its SHA-256, and the rights that it carries at most. Revoking deletes it."""

    __tablename__ = "tokens"
    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    rights: Mapped[list[Any]]
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    used_at: Mapped[float | None]


class Link(Base):
    """A link that an owner hands out, good for one use until it expires: to join a project, or to set a new password.

    The link carries a random token, signed; here is the token's SHA-256.
    """

    __tablename__ = "links"
    __table_args__ = (
        CheckConstraint("purpose IN ('join', 'password')", name="purpose"),
        CheckConstraint("(purpose = 'password') = (person_id IS NOT NULL)", name="person"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    purpose: Mapped[str] = mapped_column(String(8))
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    role: Mapped[str] = mapped_column(String(8))
    skills: Mapped[list[Any]]
    person_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[float]
    expires_at: Mapped[float]
    used_at: Mapped[float | None]


class Setting(Base):
    """What holds for the whole database: the key that signs links, and where the database has moved to."""

    __tablename__ = "settings"
    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class Webhook(Base):
    """An address that is told of a project's events."""

    __tablename__ = "webhooks"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    url: Mapped[str] = mapped_column(Text)
    events: Mapped[list[Any]]
    created_at: Mapped[float]


class Delivery(Base):
    """One event for one webhook, written in the transaction of the event itself; `next_at` is null when it is over."""

    __tablename__ = "deliveries"
    __table_args__ = (Index(None, "next_at"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    webhook_id: Mapped[int] = mapped_column(ForeignKey("webhooks.id"), index=True)
    event: Mapped[str] = mapped_column(String(40))
    body: Mapped[dict[str, Any]]
    created_at: Mapped[float]
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[float | None]
    delivered_at: Mapped[float | None]
    error: Mapped[str | None] = mapped_column(Text)
