"""Evaluation on labelled test images. The results do not influence the model or its threshold."""
