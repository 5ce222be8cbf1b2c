"""One run over files and folders: the command line, the search, the batches, the rows and the result file."""
