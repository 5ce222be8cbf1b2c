"""Where images come from: a folder that others write to, or a camera."""
