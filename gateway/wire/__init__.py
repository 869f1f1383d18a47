"""OpenAI's words: the bytes of a request into one shape, vectors into the bytes of a response. Knows no model and no server."""
