"""Encryption at rest: secrets, credentials and private keys as the database holds them.

What is encrypted begins with ``fernet:``; anything else is plain, from a time without keys. Fernet
is AES-128-CBC with HMAC-SHA256 and a fresh IV: who cannot read a value cannot change it either.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from app.domain.errors import EncryptionKeyMissing, Undecryptable

SEALED = "fernet:"


class Vault:
    """The keys of a process: the first encrypts, all decrypt. Without any, nothing is encrypted."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        """Take the keys.

        Args:
            keys: of ``encryption.normalised_key``; the newest first.
        """
        fernets = [Fernet(key) for key in keys]
        self._first = fernets[0] if fernets else None
        self._all = MultiFernet(fernets) if fernets else None

    def __bool__(self) -> bool:
        return self._first is not None

    def seal(self, plain: str, pointer: str) -> str:
        """Encrypt what must not be stored plain.

        Args:
            plain: the text.
            pointer: where it stood in what was sent.

        Raises:
            EncryptionKeyMissing: there is no key.
        """
        if self._first is None:
            raise EncryptionKeyMissing(pointer)
        return SEALED + self._first.encrypt(plain.encode()).decode()

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
        if self._all is None:
            raise Undecryptable("it is encrypted, and ENCRYPTION_KEYS is not set here")
        try:
            return self._all.decrypt(stored.removeprefix(SEALED)).decode()
        except InvalidToken:
            raise Undecryptable("none of the keys in ENCRYPTION_KEYS fits") from None

    def resealed(self, stored: str) -> str:
        """Return what is stored, encrypted under the first key; the same if it is already.

        Raises:
            EncryptionKeyMissing: there is no key.
            Undecryptable: no key fits, or what is stored is damaged.
        """
        if self._first is not None and stored.startswith(SEALED):
            try:
                self._first.decrypt(stored.removeprefix(SEALED))
            except InvalidToken:
                pass
            else:
                return stored
        return self.seal(self.open(stored), "")
