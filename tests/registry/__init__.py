"""Tests of the registry of tenants and revoked keys. `tests/registry/run --help` lists the options.

__main__     the command line; runs the selected parts
changes      parts propagation, pooler, cut and restart: how fast replicas obey a change
commands     parts kill and offboarding: killed commands, export and erase
many         part many: the cost of 10,000 tenants
proxy        a TCP proxy that can be cut
fixtures     the processes that the tests start, and their clients
report       the table of figures, and the problems
"""
