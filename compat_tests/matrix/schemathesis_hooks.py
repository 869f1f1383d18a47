"""What schemathesis loads before it starts: the model that is served, and a marker, go into what it makes up."""

from typing import Any

import schemathesis

from compat_tests.texts import ALIASES, MARKER, MODEL


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """A made-up name of a model would be all that is ever looked at. What is wrong in a body stays wrong."""
    wanted = case.path_parameters.get("model")
    if isinstance(wanted, str) and wanted not in {MODEL, *ALIASES}:
        case.path_parameters["model"] = MARKER + wanted
    body = case.body
    if not isinstance(body, dict):
        return
    if isinstance(body.get("model"), str) and body["model"]:
        body["model"] = MODEL
    if "input" in body:
        body["input"] = marked(body["input"])
    if isinstance(body.get("user"), str):
        body["user"] = MARKER + body["user"]


def marked(given: Any) -> Any:
    """The texts in it, the empty ones aside, with the marker before each."""
    if isinstance(given, list):
        return [marked(each) for each in given]
    return MARKER + given if isinstance(given, str) and given else given
