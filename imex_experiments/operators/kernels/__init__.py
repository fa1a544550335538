"""Kernels of this package for the product F^-1 (t F x): C++ for CPUs, Triton for GPUs."""
