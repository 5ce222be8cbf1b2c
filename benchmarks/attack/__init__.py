"""Attacks on a real service in a memory-limited process, with an honest client beside each: ``make attack``."""
