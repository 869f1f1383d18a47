"""OpenAI's wire format: parses requests into one shape, and encodes vectors as responses. Knows no model and no server."""
