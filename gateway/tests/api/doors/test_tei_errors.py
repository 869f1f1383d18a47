"""Errors in TEI's statuses, shapes and words, as TEI 1.9.3 answered."""

import json

import pytest

from gateway import errors
from gateway.api.doors.tei_errors import tei_error

ROWS = {
    "empty texts": (errors.EmptyInput("x", param="texts"), 400, "`texts` cannot be empty", "Empty"),
    "empty input": (errors.EmptyInput("x", param="inputs"), 400, "Input validation error: `inputs` cannot be empty", "Empty"),
    "too many": (errors.TooManyInputs(33, 32, param="texts"), 422, "batch size 33 > maximum allowed batch size 32", "Validation"),
    "invalid": (errors.InvalidValue("No."), 422, "Input validation error: No.", "Validation"),
    "wrong kind": (
        errors.WrongModelKind("m", "embedder", wanted="reranker"),
        424,
        "Backend error: The model `m` is no reranker. It gives vectors of texts: send it to /v1/embeddings.",
        "Backend",
    ),
    "upstream": (errors.UpstreamError("m", "failed"), 424, "Backend error: The upstream of the model `m` failed.", "Backend"),
    "unembeddable": (
        errors.Unembeddable("texts[1]", "no"),
        424,
        "Backend error: The model cannot embed 'texts[1]': no.",
        "Backend",
    ),
    "full": (errors.Overloaded("Full."), 429, "The server is currently overloaded. Full.", "Overloaded"),
    "loading": (errors.ModelLoading("m"), 503, "The model `m` is still loading. Please try again shortly.", "Unhealthy"),
    "our fault": (errors.InternalError("r"), 500, None, "Backend"),
    "unknown model": (errors.UnknownModel("m"), 404, None, "Validation"),
    "no key": (errors.MissingKey(), 401, None, "Validation"),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_an_error_has_teis_status_and_shape(row):
    error, status, words, kind = row
    shown = tei_error(error)
    content = json.loads(shown.body)
    assert (shown.status, content["error_type"], shown.content_type) == (status, kind, "application/json")
    assert content["error"] == words or (words is None and error.message in content["error"])


def test_a_text_that_is_too_long_says_so_in_words_that_clients_read_the_length_from():
    content = json.loads(tei_error(errors.InputTooLong("texts[1]", 512)).body)
    assert content["error"].startswith("Input validation error: `inputs` must have less than 512 tokens. Invalid 'texts[1]'")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidJSON("it is cut short"), 400),
        (errors.MissingParameter("query"), 422),
        (errors.InvalidType("No.", param="query"), 422),
        (errors.BodyTooLarge(5), 413),
        (errors.UnsupportedEncoding(), 415),
    ],
)
def test_what_teis_parser_refuses_is_plain_text(error, status):
    shown = tei_error(error)
    assert (shown.status, shown.content_type) == (status, "text/plain; charset=utf-8")
    assert error.message in shown.body.decode()
