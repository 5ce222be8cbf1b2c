"""The modules of ``score_dataset.py``. Ray sends this package to the workers."""
