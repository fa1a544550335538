"""Check a configuration made of YAML and overrides, and build its objects."""
