"""What is done with the folder of a run: `python -m softmax_jax COMMAND`."""
