"""Run one training: build the trainer, evaluate the result, print the report."""
