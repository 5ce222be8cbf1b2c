"""Offline training: from pictures of what is normal to a published, calibrated bundle."""
