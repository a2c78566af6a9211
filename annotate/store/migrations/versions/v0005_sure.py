"""When to stop asking about an item, and what to hold back: settings, the last fit of the consensus, and whose turn."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("projects", sa.Column("sure", sa.Double()))
    op.add_column("projects", sa.Column("hold_back", sa.Double()))
    op.add_column("projects", sa.Column("fit", sa.JSON(none_as_null=True)))
    op.add_column("members", sa.Column("reliability", sa.Double()))
    op.add_column("slots", sa.Column("turn", sa.Double(), nullable=False, server_default="0"))
    op.execute("UPDATE slots SET turn = item_id")
    op.drop_index("ix_slots_project_id_filled_position_item_id_number", "slots")
    columns = ["project_id", "filled", "position", "turn", "item_id", "number"]
    op.create_index("ix_slots_" + "_".join(columns), "slots", columns)
