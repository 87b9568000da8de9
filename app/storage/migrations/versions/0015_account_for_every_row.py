"""account for every row, and put back what was set aside."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.add_column(
        "receipts", sa.Column("retry", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.add_column(
        "rejected_documents",
        sa.Column("stage", sa.Text(), server_default=sa.text("'ingest'"), nullable=False),
    )
    op.add_column(
        "rejected_documents", sa.Column("retried_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.add_column(
        "dead_letters",
        sa.Column("documents", sa.Integer(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column(
        "unplanned_documents",
        sa.Column("takes", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.create_table(
        "accepted_marks",
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("accepted", sa.BigInteger(), nullable=False),
        sa.Column(
            "noted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("tenant_id", "lane"),
    )
    # From here on every row is counted as it comes and goes; these were there before.
    for name, table in (
        ("documents.created", "documents"),
        ("rejected.created", "rejected_documents"),
        ("dead_letters.created", "dead_letters"),
    ):
        op.execute(
            "INSERT INTO counter_deltas (tenant_id, name, amount)"  # noqa: S608  (constants only)
            f" SELECT tenant_id, '{name}', count(*) FROM {table} GROUP BY tenant_id"
        )
    # What was deleted before has been subtracted already.
    op.execute(
        "INSERT INTO counter_deltas (tenant_id, name, amount)"
        " SELECT tenant_id, 'documents.created', sum(amount) FROM ("
        "  SELECT tenant_id, name, amount FROM counters"
        "  UNION ALL SELECT tenant_id, name, amount FROM counter_deltas) c"
        " WHERE name = 'documents.deleted' GROUP BY tenant_id"
    )


def downgrade() -> None:

    created = "name IN ('documents.created', 'rejected.created', 'dead_letters.created')"
    for table in ("counters", "counter_deltas"):
        op.execute(f"DELETE FROM {table} WHERE {created}")  # noqa: S608  (constants only)
    op.drop_table("accepted_marks")
    op.drop_column("unplanned_documents", "takes")
    op.drop_column("dead_letters", "documents")
    op.drop_column("rejected_documents", "retried_at")
    op.drop_column("rejected_documents", "stage")
    op.drop_column("receipts", "retry")
