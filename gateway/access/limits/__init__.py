"""Rate limits: GCRA, kept in this process or by Redis for several gateways.

build    which store keeps what callers used; limiter what a request is charged, and when
gcra     the algorithm; gcra.lua the same in Redis
"""
