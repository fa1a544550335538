"""Pure functions on tensors: stencils, boundaries, and the implicit solve."""
