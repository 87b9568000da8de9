"""Which installation a command works on: the one of the environment, or what `up` runs here."""

from __future__ import annotations

import os

from app.local.errors import NotRunning
from app.local.folder import folder_from
from app.local.instance import running_instance
from app.settings import Settings, load_settings


def settings_of_installation() -> Settings:
    """Return the settings, with the private servers of `up` where the environment names none.

    Where it names another database, that is another installation: neither the private queue nor the
    private key, which would seal what its own processes could not read, has to do with it.

    Raises:
        SettingsInvalid: a variable does not hold what it must.
    """
    folder = folder_from(os.environ)
    database = os.environ.get("DATABASE_URL")
    try:
        instance = running_instance(folder)
    except NotRunning:
        return load_settings()
    if instance.database and database not in {None, "", instance.database}:
        return load_settings()
    own = {"encryption_keys": folder.encryption_keys(os.environ.get("ENCRYPTION_KEYS"))}
    if instance.database:
        own["database_url"] = instance.database
    if instance.queue and not (os.environ.get("REDIS_URL") or os.environ.get("REDIS_TLS_URL")):
        own["redis_url"] = instance.queue
    return load_settings(**own)
