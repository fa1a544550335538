"""What a network does to its input: stability, field of view, robustness."""
