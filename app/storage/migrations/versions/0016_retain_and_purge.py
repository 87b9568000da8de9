"""retain and purge."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.add_column("tombstones", sa.Column("purged_seq", sa.BigInteger(), nullable=True))
    op.add_column(
        "tombstones",
        sa.Column("purging", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    op.create_index(
        "tombstones_purging",
        "tombstones",
        ["tenant_id", "document_id"],
        unique=False,
        postgresql_where=sa.text("purging"),
    )
    op.create_index(
        "delivery_steps_child", "delivery_steps", ["tenant_id", "child_document_id"], unique=False
    )
    op.create_table(
        "retention_walks",
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("cursor", postgresql.JSON(none_as_null=True), nullable=True),
        sa.Column(
            "next_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("removed", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "name"),
    )


def downgrade() -> None:

    op.drop_table("retention_walks")
    op.drop_index("delivery_steps_child", table_name="delivery_steps")
    op.drop_index("tombstones_purging", table_name="tombstones")
    op.drop_column("tombstones", "purging")
    op.drop_column("tombstones", "purged_seq")
