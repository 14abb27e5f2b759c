"""TensorRT: engines built ahead of time, and the runtime that drives them."""
