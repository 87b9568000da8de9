"""remember failures in a row."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:

    table = "destination_runtime"
    zero, no = sa.text("0"), sa.false()
    op.add_column(table, sa.Column("failing_since", sa.TIMESTAMP(timezone=True), nullable=True))
    op.add_column(table, sa.Column("failures", sa.Integer(), server_default=zero, nullable=False))
    op.add_column(table, sa.Column("last_error", sa.Text(), nullable=True))
    op.add_column(table, sa.Column("failing_told", sa.Boolean(), server_default=no, nullable=False))


def downgrade() -> None:

    for name in ("failing_told", "last_error", "failures", "failing_since"):
        op.drop_column("destination_runtime", name)
