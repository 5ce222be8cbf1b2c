"""What ``score_dataset.py`` is made of. It travels to the workers with the job."""
