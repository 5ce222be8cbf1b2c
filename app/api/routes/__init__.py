"""One module per group of routes. Routes parse, call and render; exceptions become problem documents elsewhere."""
