"""What the gateway does on this machine, beside its bars: `python -m benchmarks`."""
