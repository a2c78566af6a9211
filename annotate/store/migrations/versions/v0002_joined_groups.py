"""Groups that have become part of another one."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # As text, because Alembic would copy the whole table to give SQLite a column with a foreign key.
    op.execute("ALTER TABLE groups ADD COLUMN joined_id INTEGER CONSTRAINT fk_groups_joined_id REFERENCES groups (id)")
