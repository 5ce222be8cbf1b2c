"""The domain: images, decisions, bundles (models on disk) and serving (models in memory).

The package does not depend on HTTP or training code; ``app.api`` and ``training`` use it.
"""
