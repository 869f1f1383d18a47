"""The HTTP API, on Litestar: OpenAI's, and doors for the clients of other servers. `gateway.server` serves it with uvicorn."""
