"""What holders see of their destinations' configuration."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import event

from app.domain.documents import DEFAULT_TENANT
from app.storage import destinations
from app.storage.configured import ConfiguredDestinations
from app.storage.engine import transaction


def test_a_destination_is_read_again_only_when_the_configuration_has_moved(engine, make_target):
    target, other = make_target("a"), make_target("b")
    configured = ConfiguredDestinations()
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *call: statements.append(call[2]))

    def look():
        with transaction(engine) as connection:
            statements.clear()
            found = configured.get(connection, DEFAULT_TENANT, target.id)
            return found, sum("FROM destinations" in one for one in statements)

    assert look() == (target, 1)
    assert look() == (target, 0)
    with transaction(engine) as connection:
        changed = replace(target, timeout_seconds=7.0)
        destinations.update(connection, changed)
    assert look() == (changed, 1)
    with transaction(engine) as connection:
        destinations.disable(connection, DEFAULT_TENANT, other.id, "by a test")
    assert look() == (changed, 1)
    with transaction(engine) as connection:
        destinations.soft_delete(connection, DEFAULT_TENANT, target.id)
    assert look() == (None, 1)
    assert look() == (None, 0)


def test_one_that_is_forgotten_is_read_anew(engine, make_target):
    target = make_target()
    configured = ConfiguredDestinations()
    with transaction(engine) as connection:
        assert configured.get(connection, DEFAULT_TENANT, target.id) == target
        destinations.update(connection, replace(target, timeout_seconds=7.0))
    configured.forget(target.id)
    with transaction(engine) as connection:
        found = configured.get(connection, DEFAULT_TENANT, target.id)
    assert found is not None
    assert found.timeout_seconds == 7.0
