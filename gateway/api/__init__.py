"""The door: HTTP in, HTTP out. Litestar and uvicorn live here and nowhere below."""
