"""NYU-Depth V2: its file, its split, its conversion, and rooms that look like it."""
