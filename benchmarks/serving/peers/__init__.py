"""Other servers around the same toy model: each a small program, run by an interpreter that has them."""
