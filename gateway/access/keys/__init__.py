"""API keys: created, stored as digests, and looked up in a copy-on-write snapshot."""
