"""tell operational events to destinations that subscribe to them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "operational_events",
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("destination_id", sa.Uuid(), nullable=False),
        sa.Column("data", postgresql.JSON(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id"),
    )
    op.add_column("deliveries", sa.Column("event_type", sa.Text(), nullable=True))
    op.add_column(
        "destinations",
        sa.Column(
            "events", postgresql.JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False
        ),
    )
    op.add_column(
        "destinations",
        sa.Column("documents", sa.Boolean(), server_default=sa.true(), nullable=False),
    )


def downgrade() -> None:

    op.drop_column("destinations", "documents")
    op.drop_column("destinations", "events")
    op.drop_column("deliveries", "event_type")
    op.drop_table("operational_events")
