"""find what was set aside."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_index(
        "rejected_documents_document",
        "rejected_documents",
        ["tenant_id", "document_id", "seq"],
        unique=False,
    )


def downgrade() -> None:

    op.drop_index("rejected_documents_document", table_name="rejected_documents")
