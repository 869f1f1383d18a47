"""Replies held against /openapi.json, as strictly as it can be read."""

import re
from copy import deepcopy

import jsonschema

OF_HTTP = {"content-type", "content-length", "date", "transfer-encoding", "keep-alive"}  # uvicorn's and the connection's
NUMBERS = {"integer", "number"}


def closed(document):
    """The document, whose objects have no field that they do not declare."""
    strict = deepcopy(document)
    for schema in strict["components"]["schemas"].values():
        for each in objects_of(schema):
            each.setdefault("additionalProperties", False)
    return strict


def objects_of(schema):
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "properties" in schema:
            yield schema
        for each in schema.values():
            yield from objects_of(each)
    if isinstance(schema, list):
        for each in schema:
            yield from objects_of(each)


def operation_of(document, method, path):
    """The operation and the path it is declared under; literal paths before those with parameters, long ones before short ones."""
    for template in sorted(document["paths"], key=lambda each: (each.count("{"), -len(each))):
        pattern = re.sub(r"\\\{\w+\\\}", ".+", re.escape(template))
        if re.fullmatch(pattern, path) and method.lower() in document["paths"][template]:
            return document["paths"][template][method.lower()], template
    raise AssertionError(f"{method} {path} is not declared")


def validator(document, schema):
    return jsonschema.Draft202012Validator({**schema, "components": document["components"]})


def hold(document, reply):
    """The template and status of a reply whose status, headers, media type and body are all declared."""
    method, path = reply.request.method, reply.request.url.path
    operation, template = operation_of(document, method, path)
    assert str(reply.status_code) in operation["responses"], (method, path, reply.status_code, reply.text[:300])
    hold_response(document, reply, operation["responses"][str(reply.status_code)])
    return method, template, reply.status_code


def hold_response(document, reply, answer):
    headers = {name: value for name, value in reply.headers.items() if name not in OF_HTTP}
    assert set(headers) <= set(answer["headers"]), (reply.request.url, reply.status_code)
    assert {name for name, header in answer["headers"].items() if header.get("required")} <= set(headers), reply.request.url
    for name, value in headers.items():
        schema = answer["headers"][name]["schema"]
        validator(document, schema).validate(int(value) if schema.get("type") in NUMBERS else value)
    if "content" not in answer:
        assert not reply.content
        return
    sent = reply.headers["content-type"].partition(";")[0]
    [(media_type, content)] = [each for each in answer["content"].items() if each[0] in {sent, "*/*"}]
    if media_type == "application/json" and content["schema"] != {"type": "string"}:
        strict = closed(document)
        validator(strict, content["schema"]).validate(reply.json())
