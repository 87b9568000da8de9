"""OpenAPI: FastAPI's own description, with ``POST /documents`` added by hand.

``python -m app openapi`` prints it; ``openapi.json`` holds it, and a test compares the two.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.domain.documents import DocumentInput

REFERENCES = "#/components/schemas/{model}"


def install(app: FastAPI) -> None:
    """Make the application answer ``/openapi.json`` with the whole description."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _describe(app)
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]  # as FastAPI's documentation does it


def _describe(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    components: dict[str, Any] = schema.setdefault("components", {}).setdefault("schemas", {})
    document = DocumentInput.model_json_schema(ref_template=REFERENCES)
    components["DocumentInput"] = document
    components["Problem"] = _problem()
    accepted = {**document, "title": "AcceptedDocument", "required": ["id"]}
    accepted["description"] = "What was sent, with its id; without content if `return=minimal`."
    components["AcceptedDocument"] = accepted
    schema["paths"]["/documents"] = {"post": _post_document()}
    _replace_validation_errors(schema)
    # In a settled order, so that openapi.json changes only with the API.
    schema["paths"] = dict(sorted(schema["paths"].items()))
    schema["components"]["schemas"] = dict(sorted(components.items()))
    return schema


def _post_document() -> dict[str, Any]:
    body = {"application/json": {"schema": {"$ref": "#/components/schemas/DocumentInput"}}}
    answer = {"application/json": {"schema": {"$ref": "#/components/schemas/AcceptedDocument"}}}
    return {
        "tags": ["documents"],
        "summary": "Accept a document",
        "operationId": "post_document",
        "description": (
            "202 means durable: Redis has acknowledged the append. The same `id` again is an"
            " update. Any content type is taken; the body is JSON."
        ),
        "parameters": [
            {
                "name": "Prefer",
                "in": "header",
                "required": False,
                "schema": {"type": "string"},
                "description": "`return=minimal` leaves the content out of the answer.",
            }
        ],
        "requestBody": {"required": True, "content": body},
        "responses": {
            "202": {
                "description": "Accepted.",
                "content": answer,
                "headers": {"Location": {"schema": {"type": "string"}}},
            },
            "413": _problem_response("The body is too large."),
            "422": _problem_response("The document is not valid; nothing was queued."),
            "503": _problem_response("Not confirmed: send it again after `Retry-After`."),
        },
    }


def _problem_response(description: str) -> dict[str, Any]:
    reference = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": description,
        "content": {"application/problem+json": {"schema": reference}},
    }


def _replace_validation_errors(schema: dict[str, Any]) -> None:
    """FastAPI describes its own validation error; ours is a problem like every other."""
    for path in schema["paths"].values():
        for operation in path.values():
            responses = operation["responses"]
            if "422" in responses:
                responses["422"] = _problem_response("The request is not valid.")
            responses["default"] = _problem_response("Any other error.")
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)


def _problem() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "title": "Problem",
        "description": "RFC 9457 problem details.",
        "type": "object",
        "required": ["type", "title", "status", "detail", "code", "request_id"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "code": text,
            "request_id": text,
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["pointer", "detail"],
                    "properties": {"pointer": text, "detail": text},
                },
            },
        },
    }
