"""A deleted pipeline leaves its names, and no row that another of its name would take over."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_KEY = "pipeline_former_names_pipeline_fkey"


def upgrade() -> None:
    """Apply."""
    op.drop_constraint(_KEY, "pipeline_former_names")
    op.execute(
        "INSERT INTO pipeline_former_names (name, numbered, pipeline) "
        "SELECT name, numbered, id FROM pipelines "
        "WHERE id NOT IN (SELECT pipeline FROM pipeline_versions) ON CONFLICT DO NOTHING"
    )
    op.execute("DELETE FROM pipelines WHERE id NOT IN (SELECT pipeline FROM pipeline_versions)")


def downgrade() -> None:
    """Undo."""
    op.execute(
        "DELETE FROM pipeline_former_names "
        "WHERE NOT EXISTS (SELECT FROM pipelines WHERE id = pipeline_former_names.pipeline)"
    )
    op.create_foreign_key(_KEY, "pipeline_former_names", "pipelines", ["pipeline"], ["id"])
