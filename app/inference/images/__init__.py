"""Image files to model input, and tensors back to image files."""
