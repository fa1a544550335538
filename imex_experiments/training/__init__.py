"""One training: the trainer, the evaluation after it, and what is printed."""
