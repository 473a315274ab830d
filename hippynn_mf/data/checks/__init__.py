"""One gate for the labels of every file: what `gate.check_structures` looks at, one module each."""
