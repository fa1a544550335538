"""Analyses of a network: stability, receptive fields, robustness."""
