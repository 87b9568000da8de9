"""find deliveries by state, time and batch, and replay them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_index(
        "deliveries_accepted", "deliveries", ["tenant_id", "seq", "destination_id"], unique=False
    )
    op.create_index(
        "deliveries_undelivered",
        "deliveries",
        ["tenant_id", "state", "seq", "destination_id"],
        unique=False,
        postgresql_where=sa.text("state IN ('pending', 'held', 'failed')"),
    )
    op.create_index(
        "deliveries_batch",
        "deliveries",
        ["tenant_id", "batch_id", "seq"],
        unique=False,
        postgresql_where=sa.text("batch_id IS NOT NULL"),
    )
    op.create_table(
        "replays",
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("filter", postgresql.JSON(), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=True),
        sa.Column("planned", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("skipped", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id"),
    )
    op.create_index(
        "replays_unfinished",
        "replays",
        ["tenant_id", "id"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NULL"),
    )


def downgrade() -> None:

    op.drop_table("replays")
    op.drop_index("deliveries_batch", table_name="deliveries")
    op.drop_index("deliveries_undelivered", table_name="deliveries")
    op.drop_index("deliveries_accepted", table_name="deliveries")
