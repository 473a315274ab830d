"""One run: what is asked for, its folder, its phases, and how it goes on after a kill."""
