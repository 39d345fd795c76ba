"""Notebooks: the two chapters cell by cell, and a probe from an embedding file to a report."""
