"""Capacity planning: how many replicas and nodes a load needs, by queueing theory, and a simulation to check the plan against."""
