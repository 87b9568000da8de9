"""keep what signs and authenticates: headers, credentials, old secrets, key pairs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:

    for name, default in (("header_names", "[]"), ("signatures", '["v1"]'), ("old_secrets", "[]")):
        op.add_column(
            "destinations",
            sa.Column(
                name,
                postgresql.JSONB(),
                server_default=sa.text(f"'{default}'::jsonb"),
                nullable=False,
            ),
        )
    for name in ("sealed_headers", "auth_type", "sealed_auth"):
        op.add_column("destinations", sa.Column(name, sa.Text(), nullable=True))
    op.add_column("destination_runtime", sa.Column("blocked_reason", sa.Text(), nullable=True))
    op.add_column(
        "destination_runtime",
        sa.Column("blocked_until", sa.TIMESTAMP(timezone=True), nullable=True),
    )
    op.create_table(
        "webhook_keys",
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("secret_key", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id"),
    )
    op.create_index(
        "webhook_keys_current",
        "webhook_keys",
        ["tenant_id"],
        unique=True,
        postgresql_where=sa.text("expires_at IS NULL"),
    )


def downgrade() -> None:

    op.drop_table("webhook_keys")
    for name in ("blocked_until", "blocked_reason"):
        op.drop_column("destination_runtime", name)
    for name in (
        "sealed_auth",
        "auth_type",
        "sealed_headers",
        "old_secrets",
        "signatures",
        "header_names",
    ):
        op.drop_column("destinations", name)
