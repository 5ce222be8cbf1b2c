"""The attacks, one module per kind."""
