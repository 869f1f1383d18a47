"""Access control: authentication by API key, rate limits, usage and budgets. It knows no HTTP, no model and no text.

access_control  the interface: open_access needs no key, key_access has the parts for keys
keys            API keys: records in the store, and the copy-on-write snapshot that requests are checked against
limits          requests and tokens a minute, and concurrency: GCRA in this process, or in Redis for several gateways
usage           usage, counted in memory and written behind; budgets
admission       the bound on requests, and bytes of their bodies, in this gateway at once
database        the store's connections; schema has its tables
"""
