"""One module per group of routes. ``app.api.problems`` turns their exceptions into responses."""
