"""An ingest without processes: documents as a worker would store and route them."""

from __future__ import annotations

import itertools
import threading
import uuid
from pathlib import Path

from app.domain.documents import DEFAULT_TENANT
from app.domain.predictions import Prediction
from app.queue.messages import Chunk
from app.storage.destinations import DestinationCache
from app.storage.engine import make_engine
from worker.ingest import Ingest, ingest
from worker.isolation import IsolatedClassifier

_seqs = itertools.count(1_790_000_000_000_000, 1000)


class Says:
    """A model with one opinion of everything."""

    def __init__(self, prediction: Prediction | None) -> None:
        self.prediction = prediction

    def usable(self):
        return self.prediction is not None

    def classify(self, texts):
        return [self.prediction] * len(texts)


class Store:
    """Stores documents as the ingest does, each in a chunk of its own."""

    def __init__(self, database_url: str) -> None:
        self.engine = make_engine(database_url, application_name="test")
        self.model = Says(Prediction("sci.space", 0.75, "m"))
        self.parts = Ingest(
            engine=self.engine,
            model=self.model,
            isolated=IsolatedClassifier(Path("nowhere")),
            destinations=DestinationCache(),
            ring=lambda *_: None,
            stopping=threading.Event(),
        )

    def __call__(self, **fields) -> str:
        document = {"id": str(uuid.uuid4()), "content": "some text", **fields}
        chunk = Chunk(
            tenant_id=DEFAULT_TENANT,
            chunk_id=uuid.uuid4(),
            seq=next(_seqs),
            documents=[document],
        )
        ingest(self.parts, [chunk])
        return document["id"]
