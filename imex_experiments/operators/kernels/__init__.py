"""Products with a symbol in kernels of our own; none knows the transforms above it."""
