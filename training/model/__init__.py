"""Networks, recipes, scoring rules and the training loop."""
