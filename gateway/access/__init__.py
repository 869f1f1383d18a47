"""Access control: who may come in, and how much at once. Knows keys and callers; knows no HTTP, no model and no text.

access_control  what a generation holds: open_access where nobody needs a key, key_access with the parts that keys have
keys            who may: records in the store, and the copy-on-write snapshot that requests are checked against
limits          how much a minute, and how many at once: GCRA in this process, or in Redis for several gateways
usage           what was used, counted here and written behind; budgets
admission       how many requests, and bytes of bodies, this gateway takes at once
database        the store's connection; schema its tables
"""
