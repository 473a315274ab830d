"""What a model does not know: which structures would tell it most."""
