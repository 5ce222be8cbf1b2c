"""HTTP below the routes: connections, middleware, request bodies, timeouts and shutdown."""
