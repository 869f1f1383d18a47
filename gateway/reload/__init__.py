"""Live reload: compares a new configuration with the old, builds its parts, and swaps them in between two requests."""
