"""hold deliveries, and retry by a destination's own schedule."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:

    moment = sa.TIMESTAMP(timezone=True)
    op.add_column("destinations", sa.Column("retry_schedule", postgresql.JSONB(), nullable=True))
    op.add_column("destinations", sa.Column("max_age_seconds", sa.Double(), nullable=True))
    op.add_column("destinations", sa.Column("paused_at", moment, nullable=True))
    op.add_column("deliveries", sa.Column("resumed_at", moment, nullable=True))
    op.create_index(
        "deliveries_held",
        "deliveries",
        ["tenant_id", "destination_id", "seq"],
        postgresql_where=sa.text("state = 'held'"),
    )


def downgrade() -> None:

    op.execute("UPDATE deliveries SET state = 'pending' WHERE state = 'held'")
    op.drop_index("deliveries_held", "deliveries")
    op.drop_column("deliveries", "resumed_at")
    for name in ("paused_at", "max_age_seconds", "retry_schedule"):
        op.drop_column("destinations", name)
