"""What can go wrong with data, as two kinds of error."""


class DataError(ValueError):
    """Data that is there, but damaged, invalid or asked for in a wrong way."""


class DatasetNotFoundError(DataError):
    """A dataset that is not to be had: neither on this machine nor from the network."""
