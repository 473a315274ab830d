"""Labelled structures: readers, preparation, splits, and the hippynn database."""
