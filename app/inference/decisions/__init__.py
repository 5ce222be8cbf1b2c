"""From scores to decisions: thresholds, verdicts, p-values, and the drift test."""
