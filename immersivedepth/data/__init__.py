"""Where pictures and truths come from, and how files are read and written."""
