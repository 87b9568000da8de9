"""Chunks that wait at the same time share a transaction, and never each other's faults."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.queue.messages import Chunk
from app.queue.retries import HandBack
from worker.grouping import MAX_CHARACTERS, MAX_DOCUMENTS, Grouping


def chunk(documents=1, tenant_id=1):
    return Chunk(tenant_id=tenant_id, chunk_id=uuid.uuid4(), seq=1, documents=[{}] * documents)


class Gate:
    """Work that waits until it is let through, and remembers its groups."""

    def __init__(self, fails=lambda _: None):
        self.groups, self.fails = [], fails
        self.entered, self.open = threading.Semaphore(0), threading.Event()

    def __call__(self, chunks):
        self.groups.append(list(chunks))
        self.entered.release()
        assert self.open.wait(10)
        for one in chunks:
            if error := self.fails(one):
                raise error


def run(gate, chunks, at_once=1):
    """Submit chunks one behind the other, all while the first is worked on."""
    grouping = Grouping(gate, at_once=at_once)
    with ThreadPoolExecutor(len(chunks)) as pool:
        futures = []
        for number, one in enumerate(chunks):
            futures.append(pool.submit(grouping.ingest, one))
            if number < at_once:
                assert gate.entered.acquire(timeout=10)
            else:
                while len(grouping._waiting) < number + 1 - at_once:
                    pass
        gate.open.set()
        return [future.exception(timeout=10) for future in futures]


def test_what_comes_while_a_group_is_worked_on_is_the_next_group():
    gate, chunks = Gate(), [chunk() for _ in range(4)]
    assert run(gate, chunks) == [None] * 4
    assert gate.groups == [[chunks[0]], chunks[1:]]


def test_as_many_groups_as_allowed_are_worked_on_side_by_side():
    gate, chunks = Gate(), [chunk() for _ in range(4)]
    assert run(gate, chunks, at_once=2) == [None] * 4
    assert gate.groups[:2] == [[chunks[0]], [chunks[1]]]
    assert sorted(map(len, gate.groups)) in ([1, 1, 2], [1, 1, 1, 1])


def test_a_group_is_no_larger_than_a_full_chunk():
    gate = Gate()
    chunks = [chunk(), chunk(MAX_DOCUMENTS - 1), chunk(1), chunk(1)]
    assert run(gate, chunks) == [None] * 4
    assert gate.groups == [[chunks[0]], chunks[1:3], [chunks[3]]]


def test_a_group_holds_no_more_text_than_a_full_chunk():
    def texts(*lengths):
        documents = [{"content": "x" * length} for length in lengths] + [{"content": 7}]
        return Chunk(tenant_id=1, chunk_id=uuid.uuid4(), seq=1, documents=documents)

    gate, half = Gate(), MAX_CHARACTERS // 2
    chunks = [chunk(), texts(half), texts(1, half - 1), texts(1), texts(5 * half), texts(1)]
    assert run(gate, chunks) == [None] * 6
    assert gate.groups == [[chunks[0]], chunks[1:3], [chunks[3]], [chunks[4]], [chunks[5]]]


def test_tenants_do_not_share_a_transaction():
    gate = Gate()
    chunks = [chunk(), chunk(), chunk(tenant_id=2), chunk(tenant_id=2)]
    assert run(gate, chunks) == [None] * 4
    assert gate.groups == [[chunks[0]], [chunks[1]], chunks[2:]]


def test_a_chunk_that_fails_fails_alone():
    chunks = [chunk() for _ in range(4)]
    fault = ValueError("no")
    gate = Gate(lambda one: fault if one is chunks[2] else None)
    assert run(gate, chunks) == [None, None, fault, None]
    assert gate.groups[2:] == [[chunks[1]], [chunks[2]], [chunks[3]]]


def test_a_group_that_must_be_handed_back_is_not_tried_one_by_one():
    chunks = [chunk() for _ in range(3)]
    back = HandBack("stopping")
    gate = Gate(lambda one: back if one is chunks[1] else None)
    assert run(gate, chunks) == [None, back, back]
    assert len(gate.groups) == 2


def test_a_leader_that_is_torn_away_leaves_nobody_waiting_and_nothing_done():
    chunks = [chunk() for _ in range(3)]
    gate = Gate(lambda one: SystemExit("torn away") if one is chunks[0] else None)
    grouping = Grouping(gate, at_once=1)
    gate.open.set()
    with pytest.raises(SystemExit):
        grouping.ingest(chunks[0])
    grouping.ingest(chunks[1])
    assert gate.groups == [[chunks[0]], [chunks[1]]]
