"""What does the service's page tell its users? An OpenAPI document made from the contract."""

from __future__ import annotations

from typing import Any

import msgspec

from ratchet.contract import Contract
from ratchet.problem import Problem
from ratchet.request import request_type

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Ratchet prediction service</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="static_content/swagger-ui.css"></head>
<body><div id="swagger-ui"></div>
<script src="static_content/swagger-ui-bundle.js" charset="utf-8"></script>
<script>window.ui = SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true,
defaultModelsExpandDepth: 2, validatorUrl: null, presets: [SwaggerUIBundle.presets.apis], layout: "BaseLayout"});
</script></body></html>"""


def document(problem: Problem, contract: Contract, examples: list[dict[str, Any]]) -> dict[str, Any]:
    """The OpenAPI 3.1 document; `examples` are real records of the problem."""
    record = request_type(contract)
    (schema,), components = msgspec.json.schema_components([record], ref_template="#/components/schemas/{name}")
    for field in components[record.__name__]["properties"].values():
        for option in (field, *field.get("anyOf", [])):
            if "enum" in option:
                option["type"] = "integer" if all(isinstance(value, int) for value in option["enum"]) else "string"
    components |= {
        "Prediction": _object(
            prediction_id=("string", "Give it back with the label"),
            probability=("number", f"Probability of {problem.outcome.positive}"),
            label=(
                "integer",
                f"1 ({problem.outcome.positive}) from probability {problem.threshold:g} on, else 0 ({problem.outcome.negative})",
            ),
            interval=("array", "Between these two the probability is calibrated (Venn-Abers); null where the version has no bounds"),
            model_version=("string", "The version that answered"),
            variant=("string", "As what it answered: champion or challenger; probe or load where the request said so"),
        ),
        "Label": _object(prediction_id=("string", "From the prediction"), label=("integer", "What turned out to be true: 0 or 1")),
        "Accepted": _object(accepted=("integer", "Labels that were new"), known=("integer", "Labels that were there already")),
        "Error": _object(error=("string", "What is wrong, where, and what to do")),
    }
    predict = _post(
        f"Ask: {problem.question}",
        "One record, or an array of records. Every answer is logged before it is given. A request repeated with the "
        "same `Idempotency-Key` header is answered from the log, and logged once.",
        _one_or_many(schema, {"one": examples[0], "many": examples[:3]} if examples else {}),
        _one_or_many(_ref("Prediction")),
    )
    predict["parameters"] = [{"name": "Idempotency-Key", "in": "header", "required": False, "schema": {"type": "string", "maxLength": 200}}]
    feedback = _post(
        "Tell what turned out to be true",
        "One label, or an array of labels, by prediction id. The same label twice is one label; another value supersedes.",
        _one_or_many(_ref("Label")),
        {"application/json": {"schema": _ref("Accepted")}},
    )
    feedback["responses"]["404"] = _error("No prediction has that id")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{problem.title}: {problem.question}",
            "version": str(contract.version),
            "description": _about(problem, contract),
        },
        "paths": {"/predict": {"post": predict}, "/feedback": {"post": feedback}, "/contract": {"get": _get("The contract of the data")}},
        "components": {"schemas": components},
    }


def _about(problem: Problem, contract: Contract) -> str:
    head = "| field | meaning | must be |\n|---|---|---|\n"
    return head + "\n".join(f"| {c.name} | {c.description} | {c.may_be} |" for c in contract.requested)


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(**fields: tuple[str, str]) -> dict[str, Any]:
    properties = {name: {"type": kind, "description": about} for name, (kind, about) in fields.items()}
    return {"type": "object", "properties": properties, "required": list(fields)}


def _one_or_many(schema: Any, examples: dict[str, Any] | None = None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"oneOf": [schema, {"type": "array", "items": schema}]}}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"application/json": content}


def _error(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ref("Error")}}}


def _post(summary: str, description: str, body: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "description": description,
        "requestBody": {"required": True, "content": body},
        "responses": {
            "200": {"description": "Answered", "content": answer},
            "413": _error("The body is larger than the service takes"),
            "422": _error("The body does not keep the contract"),
            "503": _error("No model answers yet, or the log cannot be written"),
        },
    }


def _get(summary: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": summary}}}
