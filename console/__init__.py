"""What people touch: the command line, its settings and what it prints."""
