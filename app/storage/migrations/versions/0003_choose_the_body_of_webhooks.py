"""choose the body of webhooks."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.add_column(
        "destinations",
        sa.Column("body", sa.Text(), server_default=sa.text("'envelope'"), nullable=False),
    )


def downgrade() -> None:

    op.drop_column("destinations", "body")
