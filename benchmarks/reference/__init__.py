"""What our service is measured against: nothing at all, and the obvious way to write it."""
