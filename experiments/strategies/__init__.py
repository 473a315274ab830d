"""Strategies beside those of Table 1, on the same network, data and splits as MF-DZ/EF-CC/E."""
