"""What belongs to the paper: its table 1, published numbers, tables, findings and figure 3."""
