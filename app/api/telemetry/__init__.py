"""What the service reports about itself: log, metrics, drift."""
