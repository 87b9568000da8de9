"""Classes of the user's that settings name as ``package.module:Class``."""

from __future__ import annotations

import importlib
from typing import TypeVar

from app.domain.errors import SettingsInvalid

T = TypeVar("T")


def load_class(setting: str, place: str, base: type[T]) -> type[T]:
    """Import a class.

    Args:
        setting: the variable that names it, for errors.
        place: ``package.module:Class``.
        base: what it must be a subclass of.

    Raises:
        SettingsInvalid: there is no such class; says what was looked for and what was found.
    """
    module_name, _, class_name = place.partition(":")
    if not module_name or not class_name:
        sentence = f"{setting}={place} is not of the form package.module:Class."
        raise SettingsInvalid(sentence)
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        sentence = f"{setting}={place} cannot be imported ({reason})."
        raise SettingsInvalid(sentence) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        sentence = f"{setting}={place} is not a subclass of {base.__module__}.{base.__name__}."
        raise SettingsInvalid(sentence)
    return found
