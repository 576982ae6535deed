"""Scripts that other Pythons run; nothing here is imported by this program."""
