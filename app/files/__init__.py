"""Image files on disk: the table of formats, and the search for files. Imports the standard library only."""
