"""Encryption at rest: secrets, credentials and private keys as the database holds them.

What is encrypted begins with ``fernet:``; anything else is plain, from a time without keys. Fernet
is AES-128-CBC with HMAC-SHA256 and a fresh IV: who cannot read a value cannot change it either.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

from app.domain.errors import EncryptionKeyMissing, Undecryptable

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

SEALED = "fernet:"


class Vault:
    """The keys of a process: the first encrypts, all decrypt. Without any, nothing is encrypted."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        """Take the keys.

        Args:
            keys: of ``encryption.normalised_key``; the newest first.
        """
        self._keys = tuple(keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    @cached_property
    def _fernets(self) -> list[Fernet]:
        # Eight megabytes, which a process that encrypts nothing need not have.
        from cryptography.fernet import Fernet  # noqa: PLC0415

        return [Fernet(key) for key in self._keys]

    def seal(self, plain: str, pointer: str) -> str:
        """Encrypt what must not be stored plain.

        Args:
            plain: the text.
            pointer: where it stood in what was sent.

        Raises:
            EncryptionKeyMissing: there is no key.
        """
        if not self:
            raise EncryptionKeyMissing(pointer)
        return SEALED + self._fernets[0].encrypt(plain.encode()).decode()

    def seal_if_able(self, plain: str) -> str:
        """Encrypt, or return the text as it is without a key."""
        return self.seal(plain, "") if self else plain

    def open(self, stored: str) -> str:
        """Return the text behind what is stored.

        Raises:
            Undecryptable: no key fits, or what is stored is damaged.
        """
        if not stored.startswith(SEALED):
            return stored
        if not self:
            raise Undecryptable("it is encrypted, and ENCRYPTION_KEYS is not set here")
        from cryptography.fernet import InvalidToken, MultiFernet  # noqa: PLC0415

        try:
            return MultiFernet(self._fernets).decrypt(stored.removeprefix(SEALED)).decode()
        except InvalidToken:
            raise Undecryptable("none of the keys in ENCRYPTION_KEYS fits") from None

    def resealed(self, stored: str) -> str:
        """Return what is stored, encrypted under the first key; the same if it is already.

        Raises:
            EncryptionKeyMissing: there is no key.
            Undecryptable: no key fits, or what is stored is damaged.
        """
        return stored if self._is_first(stored) else self.seal(self.open(stored), "")

    def _is_first(self, stored: str) -> bool:
        """Tell whether something is encrypted under the first key."""
        if not (self and stored.startswith(SEALED)):
            return False
        from cryptography.fernet import InvalidToken  # noqa: PLC0415

        with suppress(InvalidToken):
            self._fernets[0].decrypt(stored.removeprefix(SEALED))
            return True
        return False
