"""API keys: made, kept as digests, known to every request by a snapshot."""
