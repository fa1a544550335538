"""Manage run folders: layout, status, checkpoints, resume and loading."""
