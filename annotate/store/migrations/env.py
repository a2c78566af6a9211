"""Alembic's entry point: runs migrations on the connection that store/database.py hands over, in its transaction.

A new migration is a file in versions/ written by hand beside the change of tables.py; a test compares the two.
"""

from alembic import context

from annotate.store.access import Base  # with this module all tables are loaded

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
context.run_migrations()
