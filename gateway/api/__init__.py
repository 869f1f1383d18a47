"""HTTP in, HTTP out, in OpenAI's words. Litestar lives here and in no room below; `gateway.server` carries it over uvicorn."""
