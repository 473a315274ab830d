"""Trained models as users have them: files, ASE, predictions, other engines."""
