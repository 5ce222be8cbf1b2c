"""The HTTP API: application, routes, protocol, telemetry."""
