"""A REST service that detects anomalous images and returns the model's reconstructions."""

__version__ = "0.3.0"
