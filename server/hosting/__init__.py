"""The model versions that a server holds, from loading to the last request."""
