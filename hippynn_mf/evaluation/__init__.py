"""Errors of predictions on sets of structures that nothing was trained on."""
