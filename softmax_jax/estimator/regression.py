"""The estimator for one penalty."""

from softmax_jax.estimator import conventions, parameters, training
from softmax_jax.estimator.base import LinearClassifier


class SoftmaxRegression(LinearClassifier):
    """Softmax regression (multinomial logistic regression), at its certified optimum.

    Minimises C · Σᵢ wᵢ CE(coef xᵢ + intercept, yᵢ) + ‖coef‖²/2, as scikit-learn's
    `LogisticRegression` does, by `softmax_jax.optimum`. docs/conventions.md says what differs.

    C: the inverse of the penalty; inf for none. l2: instead of C, this project's penalty of the
    mean loss, l2/2 · ‖W‖². fit_intercept: False keeps the intercept at zero. class_weight: None,
    'balanced', or {class: weight}. tol: the relative gap to the optimum that the certificate must
    prove; None: 1e-6 in float64, 1e-4 in float32. max_iter: iterations of L-BFGS at most; if they
    do not suffice there is a ConvergenceWarning. warm_start: start from the weights of the last
    `fit`. dtype: 'float64', or 'float32', which takes half the memory and whose rounding ends at a
    gap of 1e-5 or so. solver: 'lbfgs' is the one there is, and random_state has no effect: both are
    there because LogisticRegression has them.

    After `fit`: classes_ [C] · coef_ [C, D], intercept_ [C], with two classes [1, D] and [1] ·
    n_iter_ [1] · n_features_in_, feature_names_in_ · l2_: the penalty of the mean loss ·
    objective_: mean loss + l2_/2 · ‖W‖² · gap_bound_: the objective is at most this far above its
    minimum (inf without a penalty: there is no bound).

    Sparse input is made dense for `fit`, by blocks of rows, and used as it is by the rest.

    >>> import numpy as np
    >>> x, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array(["low", "low", "high", "high"])
    >>> model = SoftmaxRegression(C=10).fit(x, y)
    >>> model.predict([[0.5], [2.5]]).tolist(), model.gap_bound_ <= 1e-6 * model.objective_
    (['low', 'high'], True)
    """

    def __init__(
        self,
        C=1.0,
        *,
        l2=None,
        fit_intercept=True,
        class_weight=None,
        tol=None,
        max_iter=1000,
        solver="lbfgs",
        warm_start=False,
        random_state=None,
        dtype="float64",
    ):
        self.C = C
        self.l2 = l2
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter
        self.solver = solver
        self.warm_start = warm_start
        self.random_state = random_state
        self.dtype = dtype

    def fit(self, X, y, sample_weight=None):
        """Fits to X [N, D], dense or sparse, y [N] and sample_weight [N]; returns the estimator.

        Raises ValueError for what scikit-learn's classifiers refuse: NaN, sizes that do not fit,
        one class only, negative weights, parameters that cannot be.
        """
        parameters.check(self)
        parameters.check_penalty(self.C, self.l2)
        examples = training.read(self, X, y, sample_weight)
        total, num_classes = examples.weights.sum(), len(examples.classes)
        l2 = conventions.swap_C_and_l2(self.C, total, num_classes) if self.l2 is None else self.l2
        problem = training.prepared(self, examples)
        found = training.solve(self, problem, [l2], initial=self._initial(num_classes))
        self.n_iter_ = found.iterations
        return self._adopt(examples.classes, found, 0, l2)

    def _initial(self, num_classes):
        """(W [1, D, C], b [1, C]) of the last fit, where it is to be the start."""
        if not self.warm_start or not hasattr(self, "coef_"):
            return None
        W, b = conventions.from_scikit_learn(self.coef_, self.intercept_)
        if W.shape != (self.n_features_in_, num_classes):
            raise ValueError(
                f"warm_start=True would start from the weights of {W.shape[0]} features and "
                f"{W.shape[1]} classes, but the data have {self.n_features_in_} and "
                f"{num_classes}: use a new estimator, or warm_start=False."
            )
        return W[None], b[None] * self.fit_intercept
