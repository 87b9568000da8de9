"""``reencrypt``: everything that is stored encrypted, under the first key."""

from __future__ import annotations

import typer

from app.cli.installation import settings_of_installation


def reencrypt() -> None:
    """Encrypt secrets and credentials anew under the first of ENCRYPTION_KEYS; safe at any time."""
    # Only for this command, as in `migrate`.
    from app.domain.vault import Vault  # noqa: PLC0415
    from app.services.reencryption import reencrypt as work  # noqa: PLC0415
    from app.storage.engine import make_engine  # noqa: PLC0415

    settings = settings_of_installation()
    engine = make_engine(settings.database_url, application_name="docyard-reencrypt", pool_size=1)
    try:
        result = work(engine, Vault(settings.encryption_keys))
    finally:
        engine.dispose()
    print(f"Encrypted under the first key: {result.rewritten}. Already so: {result.unchanged}.")
    if result.unreadable:
        print(
            f"{len(result.unreadable)} cannot be decrypted with these keys, and stay as they are:"
        )
        for name in result.unreadable:
            print(f"  {name}")
        raise typer.Exit(1)
