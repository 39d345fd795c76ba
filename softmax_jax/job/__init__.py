"""One job on a machine: a config in, a folder of results out."""
