"""The report of a training run: PNG charts, and one self-contained HTML page."""
