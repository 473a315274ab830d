"""What belongs to the paper: its table 1, published numbers, tables, findings and figure 3."""

# Figures by the names that users choose them by.
FIGURES = ("figure3", "cc-forces", "forces", "parity", "spread", "learning")
