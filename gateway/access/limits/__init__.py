"""Rate limits by GCRA, with the state in this process, or in Redis for several gateways.

limiter  what a request is charged, and when; build chooses the store of the state
gcra     the algorithm; gcra.lua is the same in Redis
"""
