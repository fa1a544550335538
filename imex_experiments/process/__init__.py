"""Manage this process: exit code, signals, console, memory and child processes."""
