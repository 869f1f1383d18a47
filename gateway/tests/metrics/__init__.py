"""The metrics of one process, and of several."""
