"""From scores to decisions: thresholds, verdicts, p-values, and the test for drift."""
