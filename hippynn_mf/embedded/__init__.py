"""Data that ships with the package; README.md beside this file says what it is."""
