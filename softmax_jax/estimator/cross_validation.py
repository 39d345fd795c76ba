"""The estimator that chooses the penalty: penalties × folds as one program, and a refit."""

import numpy as np
from sklearn.metrics import get_scorer, log_loss
from sklearn.model_selection import check_cv

from softmax_jax.estimator import conventions, parameters, training
from softmax_jax.estimator.base import LinearClassifier
from softmax_jax.estimator.regression import SoftmaxRegression


class SoftmaxRegressionCV(LinearClassifier):
    """Softmax regression with the penalty that does best in cross-validation.

    All penalties × folds are fitted as one program by `softmax_jax.optimum`; the one with the best
    mean score over the folds (of equals the strongest) is fitted again on all examples.

    Cs: inverse penalties as in `SoftmaxRegression`, or how many from 1e-4 to 1e4. l2s: instead of
    Cs, penalties of the mean loss. cv: None for 5 folds, a number, a splitter of scikit-learn, or
    an iterable of (train, test); numbers mean stratified folds in the order of the data. scoring:
    as scikit-learn's, a name or a callable (estimator, X, y); None means accuracy. `score` uses it,
    too. The others as in `SoftmaxRegression`; tol and max_iter hold for every fit.

    After `fit`, beside what `SoftmaxRegression` has: scores_ [folds, n] · Cs_, l2s_ [n]: the
    penalties of all examples · C_, l2_: the chosen one · n_iter_ [folds, n]. Memory: about 8 arrays
    [folds · n, C, N] beside a dense copy of X.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(60, 3))
    >>> model = SoftmaxRegressionCV(Cs=[1e-4, 1e-2, 1.0], cv=3).fit(x, x.argmax(1))
    >>> model.C_, model.scores_.shape
    (1.0, (3, 3))
    """

    def __init__(
        self,
        Cs=10,
        *,
        l2s=None,
        cv=None,
        scoring="neg_log_loss",
        fit_intercept=True,
        class_weight=None,
        tol=None,
        max_iter=1000,
        solver="lbfgs",
        random_state=None,
        dtype="float64",
    ):
        self.Cs = Cs
        self.l2s = l2s
        self.cv = cv
        self.scoring = scoring
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.solver = solver
        self.random_state = random_state
        self.dtype = dtype

    def fit(self, X, y, sample_weight=None, *, groups=None):
        """Fits to X [N, D], y [N] and sample_weight [N]; groups [N] are for the splitter.

        sample_weight counts in the fits and in the scores, class_weight in the fits alone. Raises
        ValueError as `SoftmaxRegression.fit` does, and for folds that the splitter cannot make.
        """
        parameters.check(self)
        Cs, l2s = parameters.check_penalties(self.Cs, self.l2s)
        examples = training.read(self, X, y, sample_weight)
        labels = examples.classes[examples.labels]
        folds = list(check_cv(self.cv, labels, classifier=True).split(examples.x, labels, groups))
        counts = _counts(folds, len(labels))
        totals, num_classes = examples.weights @ counts, len(examples.classes)
        l2 = _penalties(Cs, l2s, totals, num_classes)
        problem = training.prepared(self, examples, counts)
        columns = np.repeat(np.arange(len(folds)), l2.shape[1])
        path = training.solve(self, problem, l2[:-1].ravel(), columns)
        self.n_iter_ = path.iterations.reshape(len(folds), -1)
        self.scores_ = self._scores(path, examples, folds, sample_weight is not None)
        best = self._best(l2[-1])
        initial = [leaf[best :: l2.shape[1]].mean(0, keepdims=True) for leaf in (path.W, path.b)]
        found = training.solve(self, problem, l2[-1:, best], [len(folds)], initial)
        self.l2s_ = l2[-1]
        self.Cs_ = conventions.swap_C_and_l2(l2s, totals[-1], num_classes) if Cs is None else Cs
        self.C_ = float(self.Cs_[best])
        return self._adopt(examples.classes, found, 0, self.l2s_[best])

    def score(self, X, y, sample_weight=None):
        """The `scoring` on X [N, D] and y [N], not the accuracy unless that is the scoring."""
        given = {} if sample_weight is None else {"sample_weight": sample_weight}
        return _scorer(self.scoring)(self, X, y, **given)

    def _scores(self, path, examples, folds, weighted):
        """Of every trial, on the examples that its fold leaves out: [folds, n]."""
        scorer = _scorer(self.scoring)
        scores = np.empty((len(folds), len(path.b) // len(folds)))
        for trial, (fold, _) in enumerate(np.ndindex(scores.shape)):
            test = folds[fold][1]
            model = SoftmaxRegression()._adopt(examples.classes, path, trial, np.nan)
            model.n_features_in_ = self.n_features_in_
            given = {"sample_weight": examples.sample_weight[test]} if weighted else {}
            labels = examples.classes[examples.labels[test]]
            scores.flat[trial] = scorer(model, examples.x[test], labels, **given)
        return scores

    def _best(self, l2):
        """The penalty with the best mean score, of equals the strongest; NaN is the worst."""
        means = np.nan_to_num(self.scores_.mean(0), nan=-np.inf)
        return max(range(len(l2)), key=lambda j: (means[j], l2[j]))


def _counts(folds, num_examples):
    """How often each example counts in each fold, and at last once: [N, folds + 1]."""
    everything = np.arange(num_examples)
    trains = [np.bincount(everything[train], minlength=num_examples) for train, _ in folds]
    return np.stack([*trains, np.ones(num_examples)], 1).astype(np.int32)


def _penalties(Cs, l2s, totals, num_classes):
    """l2 of each fold and, last, of all examples, whose weights sum to totals: [folds + 1, n]."""
    if l2s is not None:
        return np.tile(l2s, (len(totals), 1))
    return conventions.swap_C_and_l2(Cs, totals[:, None], num_classes)


def _scorer(scoring):
    if scoring == "neg_log_loss":  # scikit-learn's fails where a fold lacks a class
        return _neg_log_loss
    return get_scorer("accuracy" if scoring is None else scoring)


def _neg_log_loss(estimator, X, y, sample_weight=None):
    p, classes = estimator.predict_proba(X), estimator.classes_
    return -log_loss(y, p, labels=classes, sample_weight=sample_weight)
