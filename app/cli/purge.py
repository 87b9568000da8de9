"""``purge``: remove one document everywhere."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from typing import Annotated

import typer

from app.cli.installation import settings_of_installation


def purge(
    document: Annotated[uuid.UUID, typer.Option("--document", help="Its id.")],
) -> None:
    """Remove a document everywhere: rows, attempts, answers, rejected copies, queued versions."""
    # Only for this command, as in `migrate`.
    from app.domain.documents import DEFAULT_TENANT  # noqa: PLC0415
    from app.queue.connection import connect  # noqa: PLC0415
    from app.queue.oldest import last_accepted  # noqa: PLC0415
    from app.services.purging import purge_document  # noqa: PLC0415
    from app.storage.engine import make_engine  # noqa: PLC0415

    settings = settings_of_installation()
    client = connect(settings.queue_url, verify_tls=settings.redis_tls_verify)
    engine = make_engine(settings.database_url, application_name="docyard-purge", pool_size=1)
    try:
        accepted_until = last_accepted(client, settings.redis_namespace)
        purged = purge_document(engine, DEFAULT_TENANT, document, accepted_until)
    finally:
        engine.dispose()
        client.close()
    counts = ", ".join(
        f"{name.replace('_', ' ')} {count}" for name, count in asdict(purged).items()
    )
    print(f"Purged {document}: {counts}. What is queued of it stays out.")
