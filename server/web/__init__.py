"""The page that people use the server with."""
