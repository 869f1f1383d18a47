"""Swagger UI and ReDoc lie in the package as they were published, with their licences, and are named in NOTICE."""

import hashlib
from importlib.resources import files
from pathlib import Path

import pytest

from gateway.api.docs import ASSETS, FILES

ROOT = Path(__file__).parents[3]
SUMS = {
    "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
    "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
    "redoc.standalone.js": "dcaf76612bc4a3fbcc923a8966dee2f6146a5f32e5ce1b6f02dd60cbbf89500b",
}
LICENCES = {
    "swagger-ui.LICENSE": "Apache License",
    "swagger-ui.NOTICE": "SmartBear",
    "redoc.LICENSE": "The MIT License",
    "swagger-ui-bundle.js.LICENSE.txt": "@license",
    "redoc.standalone.js.LICENSE.txt": "@license",
}


@pytest.mark.parametrize("name", SUMS)
def test_a_file_is_as_it_was_published(name):
    assert hashlib.sha256((FILES / name).read_bytes()).hexdigest() == SUMS[name]


def test_every_file_that_is_served_is_one_of_them_and_each_has_its_licence():
    assert SUMS.keys() == ASSETS.keys()
    names = {each.name for each in FILES.iterdir()}
    assert names == {*SUMS, *LICENCES, "README.md"}
    for name, words in LICENCES.items():
        assert words in (FILES / name).read_text(encoding="utf-8"), name


def test_notice_names_them():
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for name in SUMS:
        assert name in notice
    for version in ("Swagger UI 5.35.0", "ReDoc 2.5.4"):
        assert version in notice
        assert version.rpartition(" ")[2] in (files("gateway.api") / "docs_files" / "README.md").read_text(encoding="utf-8")
