"""A whole gateway stands behind these connections: the one that the tests of its doors build."""

from gateway.tests.api.conftest import client, embedder, encoder, gateway, make, quiet, stranger  # noqa: F401 - fixtures
