"""Training data: where images come from and how they are split."""
