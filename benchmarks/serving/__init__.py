"""A server under load: arrivals, a light client, figures, and servers around a toy model to measure."""
