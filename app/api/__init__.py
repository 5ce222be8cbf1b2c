"""The room that speaks HTTP: settings, routes, problem documents, middleware, metrics."""
