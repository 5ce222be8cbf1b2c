"""Image files of one format each: limits before a decoder sees them, faster decoders, and what cannot be read."""
