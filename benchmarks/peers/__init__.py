"""Compares the service with other model servers."""
