"""Chooses a recipe for a folder of images without looking at test images."""
