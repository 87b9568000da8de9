"""register collectors, keep their results and record their calls."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

DELIVERY = (
    ("tenant_id", sa.Integer()),
    ("document_id", sa.Uuid()),
    ("seq", sa.BigInteger()),
    ("destination_id", sa.Uuid()),
    ("generation", sa.SmallInteger()),
)


def delivery_columns() -> list[sa.Column[object]]:
    return [sa.Column(name, kind, nullable=False) for name, kind in DELIVERY]


def upgrade() -> None:

    op.add_column(
        "destinations",
        sa.Column("kind", sa.Text(), server_default=sa.text("'webhook'"), nullable=False),
    )
    names = [name for name, _ in DELIVERY]
    op.create_table(
        "delivery_results",
        *delivery_columns(),
        sa.Column("value", postgresql.JSON(), nullable=False),
        sa.PrimaryKeyConstraint(*names),
    )
    op.create_table(
        "delivery_steps",
        *delivery_columns(),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("child_document_id", sa.Uuid(), nullable=False),
        sa.Column("child_seq", sa.BigInteger(), nullable=False),
        sa.Column("child_destination_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("value", postgresql.JSON(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint(*names, "number"),
    )
    op.create_table(
        "collector_carriers",
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("destination_id", sa.Uuid(), nullable=False),
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "destination_id", "process"),
    )


def downgrade() -> None:

    for table in ("collector_carriers", "delivery_steps", "delivery_results"):
        op.drop_table(table)
    op.drop_column("destinations", "kind")
