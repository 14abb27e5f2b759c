"""`python -m server generate`: images on the command line, with a server or without."""
