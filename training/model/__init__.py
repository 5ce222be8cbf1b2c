"""Networks, recipes, scoring rules, the training loop and pruning."""
