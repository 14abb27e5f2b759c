"""HTTP, scheduling, admission and metrics: requests in, images out."""
