"""What a model is: the bundle and its store, pictures to tensors, conformal decisions, batched scoring.

This room knows nothing of HTTP and nothing of training; both build on it.
"""
