"""Decodes images in processes of their own, which are ended if an image takes too much time or memory."""
