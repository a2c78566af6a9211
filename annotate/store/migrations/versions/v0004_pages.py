"""What the pages ask and tell: ratings, marks, masks, practice, pay, languages, decisions, questions, chats."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    for column in (
        sa.Column("dimensions", JSON, nullable=False, server_default="[]"),
        sa.Column("all_bad", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("rationale", sa.String(8), nullable=False, server_default="off"),
        sa.Column("edit", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("spans", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("mask", JSON, nullable=False, server_default="[]"),
        # Projects from before go on as they are: without practice that nobody had asked for.
        sa.Column("practice", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("pay", JSON),
        sa.Column("arena", JSON, nullable=False, server_default="[]"),
    ):
        op.add_column("projects", column)
    op.add_column("people", sa.Column("language", sa.String(8)))
    op.add_column("members", sa.Column("training_since", sa.Double()))
    op.add_column("items", sa.Column("explanation", sa.Text()))
    op.add_column("answers", sa.Column("spans", JSON))
    _new_tables()


def _new_tables() -> None:
    op.create_table(
        "decisions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Integer(), nullable=False),
        sa.Column("member_id", sa.Integer(), nullable=False),
        sa.Column("ranks", JSON, nullable=False),
        sa.Column("strength", sa.Integer()),
        sa.Column("rationale", sa.Text()),
        sa.Column("shown", JSON, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name="fk_decisions_item_id"),
        sa.ForeignKeyConstraint(["member_id"], ["members.id"], name="fk_decisions_member_id"),
        sa.PrimaryKeyConstraint("id", name="pk_decisions"),
    )
    op.create_table(
        "questions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Integer(), nullable=False),
        sa.Column("member_id", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.Double(), nullable=False),
        sa.Column("reply", sa.Text()),
        sa.Column("replied_by", sa.Integer()),
        sa.Column("replied_at", sa.Double()),
        sa.Column("read_at", sa.Double()),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name="fk_questions_item_id"),
        sa.ForeignKeyConstraint(["member_id"], ["members.id"], name="fk_questions_member_id"),
        sa.ForeignKeyConstraint(["replied_by"], ["members.id"], name="fk_questions_replied_by"),
        sa.PrimaryKeyConstraint("id", name="pk_questions"),
    )
    op.create_table(
        "chats",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("member_id", sa.Integer(), nullable=False),
        sa.Column("models", JSON, nullable=False),
        sa.Column("turns", JSON, nullable=False),
        sa.Column("item_id", sa.Integer()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_chats_project_id"),
        sa.ForeignKeyConstraint(["member_id"], ["members.id"], name="fk_chats_member_id"),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name="fk_chats_item_id"),
        sa.PrimaryKeyConstraint("id", name="pk_chats"),
        sa.UniqueConstraint("item_id", name="uq_chats_item_id"),
    )
    for table, columns in (
        ("decisions", ("item_id", "member_id")),
        ("questions", ("item_id", "member_id")),
        ("chats", ("project_id", "member_id")),
    ):
        for column in columns:
            op.create_index(f"ix_{table}_{column}", table, [column])
