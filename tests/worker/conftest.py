"""A model that is the worst that a user could install."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from worker.isolation import IsolatedClassifier

PROJECT = Path(__file__).parents[2]
POISON = """
    import os, time

    class Model:
        classes_ = ["fine", "other"]
        doomed = False
        def predict_proba(self, texts):
            import numpy
            for text in texts:
                if self.doomed:
                    os._exit(11)
                self.doomed = text == "dooms the next"
                if text == "kills":
                    os._exit(11)
                if text == "raises":
                    raise ValueError("no")
                if text == "hangs":
                    time.sleep(60)
            return numpy.array([[0.9, 0.1]] * len(texts))
"""


@pytest.fixture
def poisonous(tmp_path, monkeypatch):
    """A model that kills, hangs or raises on some texts."""
    from models.artifact import save

    (tmp_path / "poisonous_model.py").write_text(textwrap.dedent(POISON))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{PROJECT}")
    import poisonous_model

    folder = tmp_path / "model"
    save(
        folder,
        poisonous_model.Model(),
        name="poison",
        data={},
        scores={},
        parameters={},
    )
    yield folder
    del sys.modules["poisonous_model"]


@pytest.fixture
def isolated(poisonous):
    made = IsolatedClassifier(poisonous)
    yield made
    made.close()
