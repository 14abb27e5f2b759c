"""Which rows go into which engine call, and the thread that makes the calls."""
