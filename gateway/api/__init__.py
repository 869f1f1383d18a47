"""The HTTP API, which follows OpenAI's. Only this package imports Litestar; `gateway.server` serves it with uvicorn."""
