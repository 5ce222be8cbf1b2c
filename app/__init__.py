"""A REST microservice that says whether an image is an anomaly, and shows why."""

__version__ = "0.3.0"
