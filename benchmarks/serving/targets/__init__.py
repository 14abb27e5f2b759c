"""What the server promises under load, measured: each promise a module, all in one command."""
