"""A gateway process around a fake embedder, for tests with several processes. Its environment configures it."""

import asyncio

from gateway import log
from gateway.app import Gateway
from gateway.config import ConfigSource
from gateway.testing.fakes import FakeBackend, FakeEmbedder


def main() -> None:
    source = ConfigSource()
    config = source.read()
    log.configure(level="info", line_format="json")
    asyncio.run(Gateway(config, backends=[FakeBackend(m=FakeEmbedder())], source=source).serve())


if __name__ == "__main__":
    main()
