"""The speed on images as cameras and editors write them: decoding alone, and the whole service."""
