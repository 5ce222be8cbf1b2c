"""Offline training: from normal images to a published, calibrated bundle."""
