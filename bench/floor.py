"""The floor: a FastAPI route with a typed body that does nothing (``uvicorn bench.floor:app``)."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel


class Body(BaseModel):
    """What the route is sent."""

    content: str


app = FastAPI(
    telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False}
)


@app.post("/documents", status_code=202)
async def post_document(document: Body) -> dict[str, bool]:  # noqa: ARG001  (parsed, not used)
    """Answer as soon as the body is validated."""
    return {"ok": True}
