"""Reads through Redis to a networked store: links, leases, flights.

`reads.py` is the way in; `link.py` holds one pipelined connection a node; `flights.py` reads what
the cache misses, once a key; `scripts.py` has the three Lua scripts of the lease protocol.
"""
