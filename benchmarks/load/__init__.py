"""Servers under load: a pinned server process, wrk, and well- and badly-behaved clients."""
