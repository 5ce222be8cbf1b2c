"""Training data: data sets, image folders, groups, near-duplicates and the split."""
