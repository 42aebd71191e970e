"""Trainers of other libraries, driving the same engine."""
