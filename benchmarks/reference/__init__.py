"""Applications that the service is compared with: a minimal one, and a naive implementation."""
