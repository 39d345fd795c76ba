"""What is measured, side by side with what: see book_run.py and sweep.py."""
