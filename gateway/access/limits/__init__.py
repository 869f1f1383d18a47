"""Rate limits: GCRA, kept in this process or by Redis for several gateways."""
