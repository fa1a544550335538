"""Run folders: how a run is configured, recorded, ended, and loaded again."""
