"""Run the jobs of a sweep on SLURM."""
