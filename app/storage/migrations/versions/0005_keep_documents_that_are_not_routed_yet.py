"""keep documents that are not routed yet, and destinations of plain URLs."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "unplanned_documents",
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("batch_id", sa.Uuid(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "document_id"),
    )
    op.create_index("unplanned_due", "unplanned_documents", ["tenant_id", "retry_at"])
    op.add_column("destinations", sa.Column("parent_id", sa.Uuid(), nullable=True))
    op.create_index(
        "destinations_parent",
        "destinations",
        ["tenant_id", "parent_id"],
        postgresql_where=sa.text("parent_id IS NOT NULL"),
    )


def downgrade() -> None:

    op.drop_index("destinations_parent", table_name="destinations")
    op.drop_column("destinations", "parent_id")
    op.drop_table("unplanned_documents")
