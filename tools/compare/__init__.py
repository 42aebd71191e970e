"""Comparison studies: sweeps of methods over tasks and seeds, and the pages of docs that their lines become."""
