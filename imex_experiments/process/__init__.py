"""One process: its exit code, its signals, its console and its memory."""
