"""The 17 models of the paper's Table 1: one script per row, stating what the row changes."""
