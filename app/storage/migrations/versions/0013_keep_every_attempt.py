"""keep every attempt."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "attempts",
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("destination_id", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.SmallInteger(), nullable=False),
        sa.Column("number", sa.SmallInteger(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("reused", sa.Boolean(), nullable=True),
        sa.Column("name_ms", sa.REAL(), nullable=True),
        sa.Column("connect_ms", sa.REAL(), nullable=True),
        sa.Column("tls_ms", sa.REAL(), nullable=True),
        sa.Column("wait_ms", sa.REAL(), nullable=True),
        sa.Column("rest_ms", sa.REAL(), nullable=True),
        sa.Column("total_ms", sa.REAL(), nullable=True),
        sa.Column("headers", postgresql.JSON(), nullable=True),
        sa.Column("body", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint(
            "tenant_id",
            "document_id",
            "seq",
            "destination_id",
            "generation",
            "number",
            "started_at",
        ),
        postgresql_partition_by="RANGE (started_at)",
    )
    op.execute("CREATE TABLE attempts_default PARTITION OF attempts DEFAULT")


def downgrade() -> None:

    op.drop_table("attempts")
