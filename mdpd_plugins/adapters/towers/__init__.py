"""Backbones of two towers, and what joins their outputs."""
