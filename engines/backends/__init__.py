"""What compiles and runs the engines' programs."""
