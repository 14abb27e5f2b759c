"""Data, training and evaluation of models."""
