"""Monitoring of the service: log, metrics and drift."""
