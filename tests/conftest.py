"""One thread a process: results that are compared bit for bit, and workers that do not fight over the cores."""

import os

# Read when PyTorch is first imported, here and in every process that a test starts.
os.environ["OMP_NUM_THREADS"] = "1"
