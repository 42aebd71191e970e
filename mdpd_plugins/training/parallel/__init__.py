"""Several processes: joining them, and sharing frozen weights out."""
