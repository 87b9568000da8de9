import base64

import pytest
from cryptography.fernet import Fernet

from app.domain.encryption import new_key, normalised_key
from app.domain.errors import EncryptionKeyMissing, Undecryptable
from app.domain.vault import SEALED, Vault

OLD, NEW = new_key(), new_key()


def test_what_is_sealed_is_unlike_each_time_and_opens_again():
    vault = Vault([OLD])
    one, other = vault.seal("Grüße", "/x"), vault.seal("Grüße", "/x")
    assert one != other
    assert one.startswith(SEALED)
    assert "Grüße" not in one
    assert vault.open(one) == vault.open(other) == "Grüße"
    assert Fernet(OLD).decrypt(one.removeprefix(SEALED)).decode() == "Grüße"


def test_the_first_key_encrypts_and_all_decrypt():
    by_old = Vault([OLD]).seal("x", "")
    both = Vault([NEW, OLD])
    assert both.open(by_old) == "x"
    assert Vault([NEW]).open(both.seal("x", "")) == "x"
    with pytest.raises(Undecryptable, match="none of the keys in ENCRYPTION_KEYS fits"):
        Vault([NEW]).open(by_old)


def test_without_a_key_nothing_is_sealed_and_only_plain_text_opens():
    vault = Vault()
    assert not vault
    assert vault.seal_if_able("x") == vault.open("x") == "x"
    with pytest.raises(EncryptionKeyMissing, match="openssl rand -base64 32") as caught:
        vault.seal("x", "/auth")
    assert [one.pointer for one in caught.value.violations] == ["/auth"]
    with pytest.raises(Undecryptable, match="ENCRYPTION_KEYS is not set here"):
        vault.open(Vault([OLD]).seal("x", ""))


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-1], lambda text: text[:-9] + "AAAA" + text[-5:]]
)
def test_what_was_damaged_does_not_open(damage):
    vault = Vault([OLD])
    with pytest.raises(Undecryptable):
        vault.open(damage(vault.seal("x" * 20, "")))


def test_resealing_leaves_what_is_under_the_first_key_and_takes_plain_text_too():
    both = Vault([NEW, OLD])
    by_old, by_new = Vault([OLD]).seal("x", ""), Vault([NEW]).seal("x", "")
    assert both.resealed(by_new) == by_new
    for before in (by_old, "x"):
        after = both.resealed(before)
        assert after != before
        assert Vault([NEW]).open(after) == "x"
    with pytest.raises(Undecryptable):
        Vault([NEW]).resealed(by_old)


def test_a_key_is_taken_in_either_alphabet_and_becomes_one_of_fernet():
    raw = b"\xfb\xff" * 16
    usual, for_urls = base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()
    assert usual != for_urls
    assert normalised_key(f" {usual}\n") == normalised_key(for_urls) == for_urls
    Fernet(normalised_key(usual))
    assert normalised_key(new_key()) != new_key()


@pytest.mark.parametrize(
    "text", ["", "hunter2", "é", "ab" * 32, base64.b64encode(b"x" * 31).decode()]
)
def test_what_is_no_key_is_refused(text):
    with pytest.raises(ValueError, match="base64 of 32 random bytes") as caught:
        normalised_key(text)
    assert not text or text not in str(caught.value)
