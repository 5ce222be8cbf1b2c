"""What a model is and how it scores: images, decisions, bundles, serving.

The package knows nothing of HTTP and nothing of training; both build on it.
"""
