"""From YAML and overrides to objects: what is allowed, of which type, and how it is built."""
