"""One module per group of routes; none of them catches an exception."""
