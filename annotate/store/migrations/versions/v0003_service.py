"""What a service for many raters needs: revisions, gold items, skips, drafts, roles, tokens, links, webhooks."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    _projects_and_people()
    _items_and_slots()
    _answers()
    _new_tables()


def _projects_and_people() -> None:
    for column in (
        sa.Column("closed_at", sa.Double()),
        sa.Column("gold_rate", sa.Double(), nullable=False, server_default="0.1"),
        sa.Column("qualify", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("skills", JSON, nullable=False, server_default="[]"),
        sa.Column("warnings", JSON, nullable=False, server_default="{}"),
        sa.Column("consent", sa.Text()),
        sa.Column("version", sa.Integer(), nullable=False, server_default="1"),
    ):
        op.add_column("projects", column)
    # Made anew on SQLite, so that the id of somebody who was erased is never given to another person.
    anew: Any = "always" if op.get_bind().dialect.name == "sqlite" else "never"
    with op.batch_alter_table("people", recreate=anew, table_kwargs={"sqlite_autoincrement": True}) as people:
        people.add_column(sa.Column("openid", sa.Text()))
    op.create_index("ix_people_openid", "people", ["openid"], unique=True)
    op.add_column("audit", sa.Column("person_id", sa.Integer()))
    op.add_column("logins", sa.Column("created_at", sa.Double(), nullable=False, server_default="0"))
    with op.batch_alter_table("members") as members:
        members.drop_constraint(op.f("ck_members_ck_members_role"), type_="check")  # 0001 named it so
        members.create_check_constraint(op.f("ck_members_role"), "role IN ('rater', 'reviewer', 'owner')")
        members.add_column(sa.Column("skills", JSON, nullable=False, server_default="[]"))
        members.add_column(sa.Column("opted_out", JSON, nullable=False, server_default="[]"))
        members.add_column(sa.Column("qualified_at", sa.Double()))
        members.add_column(sa.Column("consented_at", sa.Double()))
        members.add_column(sa.Column("consent_hash", sa.String(64)))
        members.add_column(sa.Column("removed_at", sa.Double()))
        members.add_column(sa.Column("version", sa.Integer(), nullable=False, server_default="1"))


def _items_and_slots() -> None:
    op.create_index("ix_groups_joined_id", "groups", ["joined_id"])
    op.create_index("ix_items_group_id", "items", ["group_id"])
    gold = sa.text("gold IS NOT NULL")
    op.create_index("ix_items_gold", "items", ["project_id"], sqlite_where=gold, postgresql_where=gold)
    op.add_column("items", sa.Column("overlap", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("items", sa.Column("version", sa.Integer(), nullable=False, server_default="1"))
    op.execute("UPDATE items SET overlap = (SELECT overlap FROM projects WHERE projects.id = items.project_id)")
    op.create_table(
        "item_tags",
        sa.Column("item_id", sa.Integer(), nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name="fk_item_tags_item_id"),
        sa.PrimaryKeyConstraint("item_id", "tag", name="pk_item_tags"),
    )
    each = "json_each(items.tags)" if op.get_bind().dialect.name == "sqlite" else "json_array_elements_text(items.tags)"
    op.execute(f"INSERT INTO item_tags SELECT DISTINCT items.id, tag.value FROM items, {each} AS tag")

    with op.batch_alter_table("slots") as slots:
        slots.add_column(sa.Column("project_id", sa.Integer(), nullable=False, server_default="0"))
        slots.add_column(sa.Column("position", sa.Double(), nullable=False, server_default="0"))
        slots.add_column(sa.Column("filled", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute(
        "UPDATE slots SET filled = EXISTS (SELECT 1 FROM answers WHERE answers.slot_id = slots.id),"
        " project_id = (SELECT project_id FROM items WHERE items.id = slots.item_id),"
        " position = (SELECT -priority FROM items WHERE items.id = slots.item_id)"
    )
    # Gold items have no slots any more, but for those that were answered as any other item.
    op.execute("DELETE FROM slots WHERE NOT filled AND item_id IN (SELECT id FROM items WHERE gold IS NOT NULL)")
    op.execute("UPDATE slots SET leased_until = NULL WHERE filled")
    with op.batch_alter_table("slots") as slots:
        slots.alter_column("project_id", server_default=None)
        slots.create_foreign_key(op.f("fk_slots_project_id"), "projects", ["project_id"], ["id"])
        slots.create_check_constraint(op.f("ck_slots_filled"), "NOT filled OR leased_until IS NULL")
    op.create_index(
        "ix_slots_project_id_filled_position_item_id_number",
        "slots",
        ["project_id", "filled", "position", "item_id", "number"],
    )

    with op.batch_alter_table("assignments") as assignments:
        assignments.add_column(sa.Column("purpose", sa.String(8), nullable=False, server_default="item"))
        assignments.add_column(sa.Column("state", sa.String(8), nullable=False, server_default="open"))
        assignments.create_check_constraint(op.f("ck_assignments_purpose"), "purpose IN ('item', 'gold', 'training')")
        assignments.create_check_constraint(op.f("ck_assignments_state"), "state IN ('open', 'answered', 'skipped')")
        assignments.drop_index("ix_assignments_member_id")
        assignments.create_index("ix_assignments_member_id_state", ["member_id", "state"])
    op.execute(
        "UPDATE assignments SET state = 'answered' WHERE EXISTS (SELECT 1 FROM answers WHERE"
        " answers.item_id = assignments.item_id AND answers.member_id = assignments.member_id)"
    )
    op.execute(
        "UPDATE assignments SET purpose = 'gold' WHERE state = 'open' AND"
        " item_id IN (SELECT id FROM items WHERE gold IS NOT NULL)"
    )


def _answers() -> None:
    op.create_table(
        "answer_texts",
        sa.Column("answer_id", sa.Integer(), nullable=False),
        sa.Column("rationale", sa.Text()),
        sa.Column("edited", JSON),
        sa.ForeignKeyConstraint(["answer_id"], ["answers.id"], name="fk_answer_texts_answer_id"),
        sa.PrimaryKeyConstraint("answer_id", name="pk_answer_texts"),
    )
    op.execute(
        "INSERT INTO answer_texts (answer_id, rationale, edited) SELECT id, rationale, edited FROM answers"
        " WHERE rationale IS NOT NULL OR edited IS NOT NULL"
    )
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    with op.batch_alter_table("answers") as answers:
        answers.drop_constraint(op.f("ck_answers_ck_answers_kind"), type_="check")
        answers.drop_constraint(op.f("ck_answers_ck_answers_slot"), type_="check")
        answers.drop_constraint(op.f("uq_answers_item_id_member_id"), type_="unique")
        answers.drop_column("rationale")
        answers.drop_column("edited")
        answers.add_column(sa.Column("revision", sa.Integer(), nullable=False, server_default="1"))
        answers.add_column(sa.Column("supersedes_id", sa.Integer()))
        answers.add_column(sa.Column("app_version", sa.String(40)))
        answers.create_unique_constraint(
            op.f("uq_answers_item_id_member_id_revision"), ["item_id", "member_id", "revision"]
        )
        answers.create_unique_constraint(
            op.f("uq_answers_item_id_member_id_idempotency_key"), ["item_id", "member_id", "idempotency_key"]
        )
        answers.create_unique_constraint(op.f("uq_answers_id_item_id_member_id"), ["id", "item_id", "member_id"])
        answers.create_unique_constraint(op.f("uq_answers_supersedes_id"), ["supersedes_id"])
        answers.create_check_constraint(
            op.f("ck_answers_kind"), "kind IN ('rated', 'surplus', 'gold', 'training', 'imported')"
        )
        answers.create_check_constraint(
            op.f("ck_answers_slot"), "(kind = 'rated' AND revision = 1) = (slot_id IS NOT NULL)"
        )
        answers.create_check_constraint(op.f("ck_answers_revision"), "(revision = 1) = (supersedes_id IS NULL)")
    with op.batch_alter_table("answers") as answers:
        answers.create_foreign_key(
            op.f("fk_answers_supersedes_id_item_id_member_id"),
            "answers",
            ["supersedes_id", "item_id", "member_id"],
            ["id", "item_id", "member_id"],
        )
    if on_sqlite:  # the triggers went with the old table
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER answers_no_{verb.lower()} BEFORE {verb} ON answers "
                "BEGIN SELECT RAISE(ABORT, 'answers is append-only'); END"
            )


def _new_tables() -> None:
    op.create_table(
        "drafts",
        sa.Column("assignment_id", sa.Integer(), nullable=False),
        sa.Column("body", JSON, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("saved_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["assignment_id"], ["assignments.id"], name="fk_drafts_assignment_id"),
        sa.PrimaryKeyConstraint("assignment_id", name="pk_drafts"),
    )
    op.create_table(
        "skips",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Integer(), nullable=False),
        sa.Column("member_id", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(12), nullable=False),
        sa.Column("text", sa.Text()),
        sa.Column("at", sa.Double(), nullable=False),
        sa.CheckConstraint(
            "reason IN ('unsafe', 'broken', 'pii', 'cannot-judge', 'other')", name=op.f("ck_skips_reason")
        ),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name="fk_skips_item_id"),
        sa.ForeignKeyConstraint(["member_id"], ["members.id"], name="fk_skips_member_id"),
        sa.PrimaryKeyConstraint("id", name="pk_skips"),
        sa.UniqueConstraint("item_id", "member_id", name="uq_skips_item_id_member_id"),
    )
    op.create_index("ix_skips_member_id", "skips", ["member_id"])
    op.create_table(
        "tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("person_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("rights", JSON, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double()),
        sa.Column("used_at", sa.Double()),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name="fk_tokens_person_id"),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("token_hash", name="uq_tokens_token_hash"),
    )
    op.create_index("ix_tokens_person_id", "tokens", ["person_id"])
    op.create_table(
        "links",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("purpose", sa.String(8), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(8), nullable=False),
        sa.Column("skills", JSON, nullable=False),
        sa.Column("person_id", sa.Integer()),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double()),
        sa.CheckConstraint("purpose IN ('join', 'password')", name=op.f("ck_links_purpose")),
        sa.CheckConstraint("(purpose = 'password') = (person_id IS NOT NULL)", name=op.f("ck_links_person")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_links_project_id"),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name="fk_links_person_id"),
        sa.PrimaryKeyConstraint("id", name="pk_links"),
        sa.UniqueConstraint("token_hash", name="uq_links_token_hash"),
    )
    op.create_index("ix_links_project_id", "links", ["project_id"])
    op.create_table(
        "settings",
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_settings"),
    )
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", JSON, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_webhooks_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_webhooks"),
    )
    op.create_index("ix_webhooks_project_id", "webhooks", ["project_id"])
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("webhook_id", sa.Integer(), nullable=False),
        sa.Column("event", sa.String(40), nullable=False),
        sa.Column("body", JSON, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.Double()),
        sa.Column("delivered_at", sa.Double()),
        sa.Column("error", sa.Text()),
        sa.ForeignKeyConstraint(["webhook_id"], ["webhooks.id"], name="fk_deliveries_webhook_id"),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
    )
    op.create_index("ix_deliveries_webhook_id", "deliveries", ["webhook_id"])
    op.create_index("ix_deliveries_next_at", "deliveries", ["next_at"])
