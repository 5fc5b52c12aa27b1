"""Pieces of plugins: what several have in common, and what would make one of them too long to read at a sitting."""
