"""Softmax regression as scikit-learn has its classifiers, fitted by the certified optimum.

The only room, beside the embedded datasets, that imports scikit-learn.
"""

from softmax_jax.estimator.cross_validation import SoftmaxRegressionCV
from softmax_jax.estimator.regression import SoftmaxRegression

__all__ = ["SoftmaxRegression", "SoftmaxRegressionCV"]
