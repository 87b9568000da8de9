"""What settings name of the user's code: ``package.module:Class``, and collectors' modules."""

from __future__ import annotations

import importlib
from typing import TypeVar

from pydantic import BaseModel

from app.domain.collectors import CollectorSpec
from app.domain.errors import SettingsInvalid
from app.domain.routers import Router
from app.settings import Settings

T = TypeVar("T")


def load_event_model(settings: Settings) -> type[BaseModel] | None:
    """Import the model that events must fit, if there is one.

    Raises:
        SettingsInvalid: there is no such model.
    """
    if settings.event_model is None:
        return None
    return load_class("EVENT_MODEL", settings.event_model, BaseModel)


def load_router(settings: Settings) -> Router | None:
    """Import and make the router of the user's, if there is one.

    Raises:
        SettingsInvalid: there is no such class, or it cannot be made.
    """
    if settings.router is None:
        return None
    found = load_class("ROUTER", settings.router, Router)  # type: ignore[type-abstract]  # a protocol
    try:
        return found()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        sentence = f"ROUTER={settings.router} cannot be made without arguments ({reason})."
        raise SettingsInvalid(sentence) from error


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


def load_collectors(settings: Settings) -> list[CollectorSpec]:
    """Import the modules that ``COLLECTORS`` names and return their collectors, in order of keys.

    Raises:
        SettingsInvalid: a module cannot be imported or has no collector, or two have the same key.
    """
    found: dict[str, CollectorSpec] = {}
    for name in settings.collectors:
        try:
            module = importlib.import_module(name)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            sentence = f"COLLECTORS={name} cannot be imported ({reason})."
            raise SettingsInvalid(sentence) from error
        own = [one for one in vars(module).values() if isinstance(one, CollectorSpec)]
        if not own:
            sentence = f"COLLECTORS={name} has no collector: nothing in it is made by @collector."
            raise SettingsInvalid(sentence)
        for one in own:
            other = found.setdefault(one.key, one)
            if other is not one:
                sentence = (
                    f"Two collectors have the key {one.key!r}:"
                    f" {_place(other)} and {_place(one)}; give each its own."
                )
                raise SettingsInvalid(sentence)
    return sorted(found.values(), key=lambda one: one.key)


def _place(spec: CollectorSpec) -> str:
    return f"{spec.function.__module__}.{getattr(spec.function, '__qualname__', 'function')}"
