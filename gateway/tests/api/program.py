"""A gateway process around a fake embedder, set by its environment: `python -m gateway.tests.api.program`."""

import asyncio

from gateway import log
from gateway.app import Gateway
from gateway.config import load
from gateway.testing.fakes import FakeBackend, FakeEmbedder


def main() -> None:
    config = load()
    log.configure(level=config.log.level, line_format="json")
    asyncio.run(Gateway(config, backends=[FakeBackend(m=FakeEmbedder())]).serve())


if __name__ == "__main__":
    main()
