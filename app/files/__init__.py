"""Files on disk: the table of image formats, the search for files, and whole writes. Standard library only."""
