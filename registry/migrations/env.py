"""Alembic's entry: runs the migrations on ``registry.catalogue``'s connection."""

from alembic import context

from registry.catalogue import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata
)
with context.begin_transaction():
    context.run_migrations()
