"""Figures and pictures from arrays; this room imports no other room of the package."""
