"""Pure functions on tensors: convolutions, symbols of stencils, the implicit solve."""
