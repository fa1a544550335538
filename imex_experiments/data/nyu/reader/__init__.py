"""A program that parses .mat files: `python reader '<request in JSON>'`."""
