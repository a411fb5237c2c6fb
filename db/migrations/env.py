"""Run by Alembic, inside the transaction `db.schema` has begun."""

from alembic import context

from db.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite cannot alter a column: Alembic makes a new table and copies.
    render_as_batch=True,
)
context.run_migrations()
