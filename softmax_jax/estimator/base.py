"""What both estimators do once they are fitted: scores, probabilities, labels. NumPy alone."""

import numpy as np
from scipy import special
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.validation import check_is_fitted, validate_data

from softmax_jax.estimator import conventions


class LinearClassifier(ClassifierMixin, BaseEstimator):
    """A classifier with classes_, coef_ and intercept_, in scikit-learn's shapes.

    coef_ is [C, D] and intercept_ [C]; with two classes [1, D] and [1], which is the difference of
    the second class to the first.
    """

    def decision_function(self, X):
        """The logits [N, C]; with two classes the log odds [N] of the second one."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", reset=False)
        scores = safe_sparse_dot(X, self.coef_.T, dense_output=True) + self.intercept_
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X):
        """The most probable class of each example: [N]."""
        scores = self.decision_function(X)
        best = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)
        return self.classes_[best]

    def predict_proba(self, X):
        """Probabilities [N, C], the classes in the order of `classes_`."""
        return special.softmax(self._logits(X), axis=1)

    def predict_log_proba(self, X):
        """Log-probabilities [N, C], finite where the probability itself would round to zero."""
        return special.log_softmax(self._logits(X), axis=1)

    def _logits(self, X):
        scores = self.decision_function(X)
        return np.stack([0 * scores, scores], 1) if scores.ndim == 1 else scores

    def _adopt(self, classes, found, trial, l2):
        """Sets what the fit of one trial leaves; returns the estimator."""
        self.classes_, self.l2_ = classes, float(l2)
        self.coef_, self.intercept_ = conventions.to_scikit_learn(found.W[trial], found.b[trial])
        self.objective_ = float(found.objective[trial])
        self.gap_bound_ = float(found.gap_bound[trial])
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
