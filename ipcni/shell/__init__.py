"""Scripts: rendered, shown, run, undone and remembered."""
