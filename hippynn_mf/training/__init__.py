"""Training a model: strategies, the loop, initial heads, several devices."""
