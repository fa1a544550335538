"""Many runs: planned, launched, gone on with, searched."""
