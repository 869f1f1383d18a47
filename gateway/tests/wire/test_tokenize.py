"""Bodies of POST /v1/tokenize."""

import pytest

from gateway.errors import InvalidType
from gateway.wire.tokenize import decode


@pytest.mark.parametrize("ids", ["[15339, 1917]", "[15339.0, 1917]", "[[15339.0, 1917.0]]"])
def test_an_id_may_be_written_as_a_whole_float(ids):
    assert decode(f'{{"model": "m", "input": {ids}}}'.encode()).asked.texts == ["hello world"]


@pytest.mark.parametrize("ids", ["[1.5]", '["a", 1.0]', "1.0", "[1.0, 1e400]"])
def test_what_is_no_id_is_refused(ids):
    with pytest.raises(InvalidType) as refused:
        decode(f'{{"model": "m", "input": {ids}}}'.encode())
    assert refused.value.param == "input"
