"""What training will hold, worked out before any of it is held."""
