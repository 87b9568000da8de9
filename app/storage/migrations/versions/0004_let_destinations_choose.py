"""let destinations choose what they take."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

NO_LIST = sa.text("'[]'::jsonb")


def upgrade() -> None:

    op.add_column(
        "destinations",
        sa.Column("topics", postgresql.JSONB(), server_default=NO_LIST, nullable=False),
    )
    op.add_column(
        "destinations",
        sa.Column("categories", postgresql.JSONB(), server_default=NO_LIST, nullable=False),
    )
    op.add_column("destinations", sa.Column("min_confidence", sa.Double(), nullable=True))
    op.add_column(
        "destinations",
        sa.Column("uncertain", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    op.add_column("destinations", sa.Column("filter", postgresql.JSON(), nullable=True))


def downgrade() -> None:

    for name in ("filter", "uncertain", "min_confidence", "categories", "topics"):
        op.drop_column("destinations", name)
