"""Programs as ONNX files, and the check that a file computes what its program does."""
