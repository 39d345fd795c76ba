"""Scripts that ask one question each of the library's functions, and print and draw the answer."""
