"""The gateway beside other servers and libraries of the same model, on the same cores in one run: `make bench-peers`."""
