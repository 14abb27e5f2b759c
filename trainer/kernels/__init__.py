"""Kernels of our own, built on first use, where PyTorch's leave much of a machine unused."""
