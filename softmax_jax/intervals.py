"""95 % intervals for figures that are means over independent examples."""

import math


def wilson(successes, trials, confidence=0.95):
    """Wilson's score interval [lo, hi] for a proportion, such as an accuracy.

    Unlike the normal interval it stays inside [0, 1] and keeps its coverage near the ends.
    Source: E. B. Wilson (1927), by `scipy.stats.binomtest`.
    """
    from scipy.stats import binomtest  # half a second to import: only where a test split is used

    interval = binomtest(int(successes), int(trials)).proportion_ci(confidence, method="wilson")
    return [float(interval.low), float(interval.high)]


def normal(mean, standard_deviation, n, confidence=0.95):
    """mean ± z · sd / √n: the interval [lo, hi] for the mean of n independent values."""
    from scipy.stats import norm

    half = norm.ppf(0.5 + confidence / 2) * standard_deviation / math.sqrt(n)
    return [float(mean - half), float(mean + half)]
