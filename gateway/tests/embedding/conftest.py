"""A slow machine is no failure: examples have no deadline of their own, the tests have pytest's."""

from hypothesis import settings

settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")
