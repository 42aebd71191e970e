"""Checkpoint files: reading them without running code, and getting them over the network."""
