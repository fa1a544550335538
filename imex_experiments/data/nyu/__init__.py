"""Read, split and convert NYU-Depth V2, and render a sample file of the same layout."""
