"""Real images: where they come from and in which order training sees them."""
