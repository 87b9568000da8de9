"""A document that the classifier cannot take harms only itself, with real processes."""

from __future__ import annotations

import re
import sys
import textwrap
import uuid

import psycopg
import pytest

from app.queue.liveness import EXIT_SILENT
from tests.acceptance.conftest import PROJECT, children, until

MODEL = """
    import ctypes, faulthandler, re, threading

    class Model:
        classes_ = ["fine", "other"]
        def predict_proba(self, texts):
            import numpy
            for text in texts:
                if text == "exhausts memory":
                    raise MemoryError
                if text == "waits for ever":
                    threading.Event().wait()
                if text == "holds the interpreter":
                    # What ends such a process after a minute, sooner.
                    faulthandler.dump_traceback_later(2, exit=True)
                    re.match("(a+)+$", "a" * 64 + "b")
                if text == "segfaults":
                    ctypes.string_at(0)
            return numpy.array([[0.9, 0.1]] * len(texts))
"""
DEADLY = {"waits for ever": str(EXIT_SILENT), "holds the interpreter": "1", "segfaults": "SIGSEGV"}
"""With what the process ends that meets it."""


@pytest.fixture
def model(tmp_path, monkeypatch):
    """Return the folder of a model that some texts are too much for."""
    from models.artifact import save

    (tmp_path / "a_poisonous_model.py").write_text(textwrap.dedent(MODEL))
    monkeypatch.syspath_prepend(str(tmp_path))
    import a_poisonous_model

    folder = tmp_path / "model"
    save(folder, a_poisonous_model.Model(), name="poison", data={}, scores={}, parameters={})
    yield folder
    del sys.modules["a_poisonous_model"]


@pytest.fixture
def system(make_system, database_url, redis_url, model):
    made = make_system(
        database_url,
        redis_url,
        MODEL_PATH=str(model),
        PYTHONPATH=f"{model.parent}:{PROJECT}",
        INGEST_PROCESSES="1",
        CLASSIFY_TIMEOUT_SECONDS="3",
    )
    made.start_web()
    return made


def post(system, poison):
    """Post a document among others, in one chunk; return their ids, the bad one's first."""
    texts = ["before", poison, "behind"]
    sent = [{"id": str(uuid.uuid4()), "content": one} for one in texts]
    assert system.post("/documents/batch", sent)[0] == 202
    ids = [one["id"] for one in sent]
    return ids[1], [ids[0], ids[2]]


def rejected(system, one):
    return system.get(f"/rejected?document_id={one}")[1]["items"]


@pytest.mark.timeout(240)
def test_a_document_that_is_too_much_for_the_classifier_is_set_aside_alone(system, database_url):
    worker = system.start("worker", "--only", "ingest")
    posted = {"exhausts memory": post(system, "exhausts memory")}
    assert until(lambda: rejected(system, posted["exhausts memory"][0]), 30), system.logs()
    for poison in DEADLY:
        # One after the other, so that each is met by a process that the others have not ended,
        # and ends none that is still at work on another.
        (old,) = until(lambda: children(worker.pid), 30)
        posted[poison] = post(system, poison)
        assert until(lambda: set(children(worker.pid)) - {old}, 60), system.logs()  # noqa: B023
        assert until(lambda: rejected(system, posted[poison][0]), 60), system.logs()  # noqa: B023
    for poison, (bad, mates) in posted.items():
        (one,) = until(lambda: rejected(system, bad), 60)  # noqa: B023
        assert one["stage"] == "classifier"
        assert ("died or hung" if poison in DEADLY else "MemoryError") in one["reason"]
        assert system.get(f"/documents/{bad}")[0] == 404
        for mate in mates:
            status, found = system.get(f"/documents/{mate}")
            assert (status, found["category"]) == (200, "fine")
    # Nobody else died, and each of them once.
    (log,) = (path.read_text() for path in system.folder.glob("worker-*.log"))
    assert '"parts": ["classifier"]' in log
    assert re.findall(r'"code": "?(\w+)', log) == list(DEADLY.values())
    conninfo = database_url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(conninfo) as connection:
        (most,) = connection.execute("SELECT max(tries) FROM receipts").fetchone()
    assert most == 2
