"""Every claim about GPUs, checked and timed on the one at hand."""
