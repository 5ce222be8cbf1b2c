"""Request bodies, and the images in them."""
