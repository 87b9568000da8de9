"""bound concurrency and rate, and remember what was found out."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.add_column(
        "destinations",
        sa.Column("min_concurrency", sa.Integer(), server_default=sa.text("1"), nullable=False),
    )
    op.add_column("destinations", sa.Column("max_concurrency", sa.Integer(), nullable=True))
    op.add_column("destinations", sa.Column("max_per_second", sa.Double(), nullable=True))
    op.add_column(
        "destination_runtime", sa.Column("concurrency_limit", sa.Integer(), nullable=True)
    )
    op.add_column("destination_runtime", sa.Column("concurrency_reason", sa.Text(), nullable=True))
    op.add_column(
        "destination_runtime", sa.Column("concurrency_memory", postgresql.JSONB(), nullable=True)
    )
    op.add_column(
        "destination_runtime",
        sa.Column("rate_paid_at", sa.TIMESTAMP(timezone=True), nullable=True),
    )


def downgrade() -> None:

    for name in ("rate_paid_at", "concurrency_memory", "concurrency_reason", "concurrency_limit"):
        op.drop_column("destination_runtime", name)
    for name in ("max_per_second", "max_concurrency", "min_concurrency"):
        op.drop_column("destinations", name)
