"""order and batch deliveries."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

FRESH = sa.text("state = 'pending' AND attempts = 0")


def upgrade() -> None:

    fifo, zero = sa.text("'fifo'"), sa.text("0")
    op.add_column(
        "destinations", sa.Column("queue", sa.Text(), server_default=fifo, nullable=False)
    )
    op.add_column(
        "destinations",
        sa.Column("ordered", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    op.add_column("destinations", sa.Column("batch", postgresql.JSONB(), nullable=True))
    op.add_column(
        "deliveries", sa.Column("rank", sa.Integer(), server_default=zero, nullable=False)
    )
    _index("tenant_id", "destination_id", "rank", "seq")


def downgrade() -> None:

    _index("tenant_id", "destination_id", "seq")
    op.drop_column("deliveries", "rank")
    for name in ("batch", "ordered", "queue"):
        op.drop_column("destinations", name)


def _index(*columns: str) -> None:
    op.drop_index("deliveries_fresh", "deliveries")
    op.create_index("deliveries_fresh", "deliveries", list(columns), postgresql_where=FRESH)
