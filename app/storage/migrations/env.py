"""Alembic's entry: migrates over the connection that it is handed."""

from alembic import context
from sqlmodel import SQLModel

from app.storage import tables  # noqa: F401  (fills the metadata)

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=SQLModel.metadata)
with context.begin_transaction():
    context.run_migrations()
