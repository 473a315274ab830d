"""A module for each file format that structures and labels are read from or written to."""
