"""Real labelled data that comes inside ordinary packages, for work without a hub."""
