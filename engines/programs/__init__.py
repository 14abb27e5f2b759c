"""The computations that backends compile: pure modules with named inputs and outputs."""
