"""Softmax regression with the interface of scikit-learn's classifiers, fitted to the optimum."""

import copy
import inspect
import warnings
from typing import Any

import numpy as np
from scipy import special
from sklearn import get_config
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import get_scorer
from sklearn.model_selection import check_cv
from sklearn.utils import metadata_routing
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.validation import (
    _check_method_params,
    check_is_fitted,
    validate_data,
)

from softmax_jax import losses
from softmax_jax.estimator_fit import (
    are_soft,
    check_parameters,
    check_penalty,
    check_ratio,
    from_scikit_learn,
    like,
    prepare_problem,
    read_examples,
    require,
    solve_trials,
    split_penalty,
    swap_C_and_l2,
    to_numpy,
    total_weight,
    with_absent,
)
from softmax_jax.optimum import Optimum


class _LinearClassifier(ClassifierMixin, BaseEstimator):
    """A classifier with classes_, coef_ and intercept_, in scikit-learn's shapes.

    coef_ is [C, D] and intercept_ [C]; with two classes they are [1, D] and [1], the second class
    minus the first.

    With `class_weight` these, `decision_function` and `predict` are of the weighted fit, as in
    scikit-learn: it is there to move the decisions. The probabilities are corrected for it, p ∝ p'
    / class_weight_, so that they are those of data as they are; `predict_weighted_proba` has p'.

    Arguments of `__init__` and arrays of the user have no annotations: both may be anything that
    scikit-learn takes, and are validated in `fit`. With its `array_api_dispatch`, arrays of other
    libraries are computed with in NumPy, and the answers are arrays of theirs.
    """

    def decision_function(self, X) -> Any:
        """The logits [N, C]; with two classes the log odds [N] of the second one."""
        return like(X, self._decide(X, "decision_function"))

    def predict(self, X) -> Any:
        """The most probable class of each example."""
        scores = self._decide(X, "predict")
        best = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)
        return like(X, to_numpy(self.classes_)[best])

    def predict_proba(self, X) -> Any:
        """Probabilities [N, C] in the order of `classes_`, corrected for class weights."""
        return like(X, special.softmax(self._true_logits(X, "predict_proba"), axis=1))

    def predict_log_proba(self, X) -> Any:
        """Log-probabilities [N, C], finite even where the probability rounds to zero."""
        return like(X, special.log_softmax(self._true_logits(X, "predict_log_proba"), axis=1))

    def predict_weighted_proba(self, X) -> Any:
        """Probabilities [N, C] as fitted: of data in which each class counts as it was weighed."""
        return like(X, special.softmax(self._logits(X, "predict_weighted_proba"), axis=1))

    def summary(self, X, y, **options) -> Any:
        """`inference.summary` of the training examples: `print` it, or look at it in a notebook."""
        from softmax_jax import inference

        return inference.summary(self, X, y, **options)

    def _true_logits(self, X, method):
        weights = to_numpy(getattr(self, "class_weight_", np.ones(1)))
        return self._logits(X, method) - losses.weight_offsets(weights)

    def _decide(self, X, method):
        check_is_fitted(self)
        if get_config()["array_api_dispatch"]:
            from sklearn.utils._array_api import check_same_namespace

            check_same_namespace(X, self, attribute="coef_", method=method)
        X = validate_data(self, to_numpy(X), accept_sparse="csr", reset=False)
        coef, intercept = to_numpy(self.coef_), to_numpy(self.intercept_)
        scores = safe_sparse_dot(X, coef.T, dense_output=True) + intercept
        return scores[:, 0] if len(coef) == 1 else scores

    def _logits(self, X, method):
        scores = self._decide(X, method)
        return np.stack([0 * scores, scores], 1) if scores.ndim == 1 else scores

    def _adopt(self, examples, W, b, l2, objective=np.nan, gap_bound=np.nan, *, l1=0.0):
        """Sets the fitted attributes of weights W [D, C] and b [C]; returns the estimator."""
        self.classes_, self.l2_, self.l1_ = examples.classes, float(l2), float(l1)
        self.class_weight_ = examples.class_weight
        self.coef_, self.intercept_ = with_absent(W, b, examples.known, centred=not l1)
        self.objective_, self.gap_bound_ = float(objective), float(gap_bound)
        return self

    def _as_given(self, X, y):
        """Makes the fitted arrays those of the library of X, and classes_ that of y."""
        for name, value in vars(self).items():
            if name.endswith("_") and hasattr(value, "__dlpack__"):
                setattr(self, name, like(y if name == "classes_" else X, value))
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = tags.array_api_support = True
        return tags


class SoftmaxRegression(_LinearClassifier):
    """Softmax regression (multinomial logistic regression), at its certified optimum.

    Minimises C · Σᵢ wᵢ CE(coef xᵢ + intercept, yᵢ) + ‖coef‖²/2, as scikit-learn's
    `LogisticRegression` does, by `softmax_jax.optimum`; with an l1_ratio r the penalty is
    r ‖coef‖₁ + (1 - r) ‖coef‖²/2. docs/conventions.md lists the differences.
    Sparse input stays sparse (docs/sparse.md), but an l1_ratio or soft labels make it dense.

    Args:
      C: the inverse of the penalty; inf for none.
      l2: instead of C, this project's penalty of the mean loss, l2/2 · ‖W‖².
      l1_ratio: from 0 to 1, how much of the penalty is ‖coef‖₁, which makes coefficients exactly
        zero.
      fit_intercept: False keeps the intercept at zero.
      class_weight: None, 'balanced', or {class: weight}.
      tol: the relative gap to the optimum that the certificate must prove; None: 1e-6 in float64,
        1e-4 in float32, which then takes up to 100 more iterations for the smallest it can prove.
      max_iter: the most iterations of L-BFGS; if they do not suffice there is a ConvergenceWarning.
        With 0 the weights stay where they begin: at zero, with the classes' log frequencies.
      solver: 'lbfgs', the only one; here because `LogisticRegression` has it.
      warm_start: start from the weights of the last `fit`.
      random_state: no effect; here because `LogisticRegression` has it.
      dtype: 'float64', or 'float32', which takes half the memory; the coefficients are then good to
        about 1e-5 of the largest.

    After `fit`: classes_ [C] · coef_ [C, D], intercept_ [C], with two classes [1, D] and [1] ·
    class_weight_ [C] · n_iter_ [1] · n_features_in_, feature_names_in_ · l2_: the penalty of the
    mean loss, and l1_, that of its ‖W‖₁ · objective_: mean loss + l2_/2 · ‖W‖² + l1_ · ‖W‖₁ ·
    gap_bound_: the objective is at most this far above its minimum (inf without a penalty: there is
    no bound).

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
        l1_ratio=0.0,
        fit_intercept=True,
        class_weight=None,
        tol=None,
        max_iter=1000,
        solver="lbfgs",
        warm_start=False,
        random_state=None,
        dtype="float64",
    ) -> None:
        self.C, self.l2, self.fit_intercept, self.class_weight = C, l2, fit_intercept, class_weight
        self.tol, self.max_iter, self.solver, self.dtype = tol, max_iter, solver, dtype
        self.warm_start, self.random_state, self.l1_ratio = warm_start, random_state, l1_ratio

    def fit(self, X, y, sample_weight=None) -> "SoftmaxRegression":
        """Fits to X [N, D], dense or sparse, y [N] and sample_weight [N]; returns the estimator.

        y may also be soft labels [N, C], numbers of sum 1: classes_ are then 0..C-1, or the names
        of the columns of a data frame. One is the same as C copies of the example, one of
        each class, with these weights.

        Raises:
          ValueError: for what scikit-learn's classifiers refuse: NaN, shapes that do not fit, a
            single class, negative weights, invalid parameters, soft labels of another sum.
        """
        check_parameters(self)
        warm = isinstance(self.warm_start, bool | np.bool_)
        require("warm_start", self.warm_start, "True or False", warm)
        check_penalty(self.C, self.l2)
        check_ratio("l1_ratio", self.l1_ratio, self.l2)
        examples = read_examples(self, X, y, sample_weight)
        total, num_classes = total_weight(examples), int(examples.known.sum())
        l2 = swap_C_and_l2(self.C, total, num_classes) if self.l2 is None else self.l2
        l2, l1 = map(float, split_penalty(l2, self.l1_ratio, num_classes))
        problem = prepare_problem(self, examples)
        found = solve_trials(self, problem, [l2], initial=self._initial(examples), l1=[l1])
        self.n_iter_ = found.iterations
        numbers = found.W[0], found.b[0], l2, found.objective[0], found.gap_bound[0]
        return self._adopt(examples, *numbers, l1=l1)._as_given(X, y)

    def _initial(self, examples):
        """(W [1, D, C], b [1, C]) of the last fit, for a warm start; else None."""
        if not self.warm_start or not hasattr(self, "coef_"):
            return None
        W, b = from_scikit_learn(to_numpy(self.coef_), to_numpy(self.intercept_))
        num_classes = len(examples.classes)
        if W.shape != (self.n_features_in_, num_classes):
            raise ValueError(
                f"warm_start=True would start from the weights of {W.shape[0]} features and "
                f"{W.shape[1]} classes, but the data have {self.n_features_in_} and "
                f"{num_classes}: use a new estimator, or warm_start=False."
            )
        return W[None, :, examples.known], b[None, examples.known] * self.fit_intercept


class SoftmaxRegressionCV(_LinearClassifier):
    """Softmax regression with the penalty that scores best in cross-validation.

    All penalties × folds are fitted as one program by `softmax_jax.optimum`. The penalty with the
    best mean score over the folds (the strongest of equals) is then fitted on all examples. Memory:
    about 8 arrays [folds · n, C, N] beside a copy of X; of sparse X see `optimum.minimise`.

    Args:
      Cs: inverse penalties as in `SoftmaxRegression`, or how many of them from 1e-4 to 1e4.
      l2s: instead of Cs, penalties of the mean loss.
      l1_ratios: those to try with each of the Cs, as in `SoftmaxRegression`; None for 0 alone.
      cv: None for 5 folds, a number of stratified folds in the order of the data, a splitter of
        scikit-learn, or an iterable of (train, test).
      scoring: a name or a callable (estimator, X, y), as in scikit-learn; None means accuracy.
        `score` uses it, too.
      refit: False for the mean of the folds' models, each with the penalty that is best there,
        instead of a fit on all examples. C_ is then the mean of these C.
      fit_intercept, class_weight, tol, max_iter, solver, random_state, dtype: as in
        `SoftmaxRegression`; tol and max_iter apply to every fit.

    After `fit`, beside the attributes of `SoftmaxRegression` (of a mean of models, objective_ and
    gap_bound_ are NaN): scores_ [folds, n] · coefs_paths_ [folds, n, C, D + 1]: coef_ and, in the
    last column, intercept_ of every fit; [folds, n, C, D] without one, and 1 instead of C with two
    classes · Cs_, l2s_ [n]: the penalties for all examples · C_, l2_: the chosen one · n_iter_
    [folds, n]. With l1_ratios there is an axis for these before n; l1_ratios_, l1_ratio_.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(60, 3))
    >>> model = SoftmaxRegressionCV(Cs=[1e-4, 1e-2, 1.0], cv=3).fit(x, x.argmax(1))
    >>> model.C_, model.scores_.shape
    (1.0, (3, 3))
    """

    # `score` passes its weights on to the scorer, and needs none itself.
    __metadata_request__score = {"sample_weight": metadata_routing.UNUSED}

    def __init__(
        self,
        Cs=10,
        *,
        l2s=None,
        l1_ratios=None,
        cv=None,
        scoring="neg_log_loss",
        refit=True,
        fit_intercept=True,
        class_weight=None,
        tol=None,
        max_iter=1000,
        solver="lbfgs",
        random_state=None,
        dtype="float64",
    ) -> None:
        self.Cs, self.l2s, self.cv, self.scoring, self.refit = Cs, l2s, cv, scoring, refit
        self.fit_intercept, self.class_weight = fit_intercept, class_weight
        self.tol, self.max_iter, self.solver, self.dtype = tol, max_iter, solver, dtype
        self.random_state, self.l1_ratios = random_state, l1_ratios

    def fit(self, X, y, sample_weight=None, **params) -> "SoftmaxRegressionCV":
        """Fits to X [N, D], y [N] and sample_weight [N].

        sample_weight counts in the fits and in the scores, class_weight in the fits only. Of
        params, `groups` [N] are for the splitter. With scikit-learn's metadata routing, splitter
        and scorer get what they request.

        Raises:
          ValueError: as `SoftmaxRegression.fit` does, for folds that the splitter cannot make or
            that train on a single class, and if no score can be computed.
        """
        check_parameters(self)
        require("refit", self.refit, "True or False", isinstance(self.refit, bool | np.bool_))
        Cs, l2s = _check_penalties(self.Cs, self.l2s)
        if are_soft(y):
            raise ValueError(
                f"y must be labels [N]; its shape is {np.shape(y)}. Folds and scores are those of "
                "labels: with soft labels [N, C], fit SoftmaxRegression for each penalty."
            )
        ratios = np.zeros(1)
        if self.l1_ratios is not None:
            ratios = _grid("l1_ratios", self.l1_ratios, lambda r: check_ratio("l1_ratios", r, l2s))
        examples = read_examples(self, X, y, sample_weight)
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        for_splitter, routed = self._routed(weights, params)
        for_scorer = _check_method_params(X, routed, indices=np.flatnonzero(examples.there))
        if sample_weight is not None and routed.get("sample_weight") is sample_weight:
            for_scorer["sample_weight"] = examples.sample_weight
        folds = _split(self.cv, X, y, for_splitter, examples)
        counts = _counts(folds, len(examples.labels))
        _check_folds(examples, counts)
        totals, num_classes = total_weight(examples, counts), int(examples.known.sum())
        whole = _penalties(Cs, l2s, totals, num_classes)
        # [folds + 1, the penalties of each ratio in turn]
        l2, l1 = (
            penalty.reshape(len(totals), -1)
            for penalty in split_penalty(whole[:, None], ratios[:, None], num_classes)
        )
        problem = prepare_problem(self, examples, counts)
        # With the fits on all examples among them, the last one needs no programs of its own.
        fitted = len(folds) + bool(self.refit)
        columns = np.repeat(np.arange(fitted), l2.shape[1])
        found = solve_trials(self, problem, l2[:fitted].ravel(), columns, l1=l1[:fitted].ravel())
        shape = len(folds), l2.shape[1]
        path = Optimum(*(leaf[: shape[0] * shape[1]] for leaf in found))
        own = (len(folds), *[len(ratios)] * (self.l1_ratios is not None), whole.shape[1])
        self.n_iter_, self.l2s_ = path.iterations.reshape(own), whole[-1]
        self.Cs_ = np.asarray(swap_C_and_l2(l2s, totals[-1], num_classes) if Cs is None else Cs)
        models = zip(path.W, path.b, strict=True)
        pairs = [
            with_absent(*pair, examples.known, centred=not penalty)
            for pair, penalty in zip(models, l1[: len(folds)].ravel(), strict=True)
        ]
        coef, intercept = map(np.stack, zip(*pairs, strict=True))
        columns = [coef, intercept[..., None]] if self.fit_intercept else [coef]
        self.coefs_paths_ = np.concatenate(columns, -1).reshape(*own, len(coef[0]), -1)
        scores = self._scores(path, examples, folds, for_scorer)
        self.scores_ = scores.reshape(own)
        says = ~np.isnan(scores).all(1)  # of all-NaN folds nothing is known
        strengths, Cs = np.tile(self.l2s_, len(ratios)), np.tile(self.Cs_, len(ratios))
        every = np.repeat(ratios, whole.shape[1])
        if self.refit:
            best = _best(scores[says].sum(0), strengths)
            trial = shape[0] * shape[1] + best
            model = found.W[trial], found.b[trial]
            proof = found.objective[trial], found.gap_bound[trial]
            self.C_, ratio, strength = float(Cs[best]), float(every[best]), strengths[best]
        else:
            best = [_best(of_fold, strengths) for of_fold in scores[says]]
            trials = np.flatnonzero(says) * shape[1] + best
            model, proof = (path.W[trials].mean(0), path.b[trials].mean(0)), ()
            self.C_, ratio = float(Cs[best].mean()), float(every[best].mean())
            strength = swap_C_and_l2(self.C_, totals[-1], num_classes)
        if self.l1_ratios is not None:
            self.l1_ratios_, self.l1_ratio_ = ratios, ratio
        chosen, sparse = split_penalty(strength, ratio, num_classes)
        return self._adopt(examples, *model, chosen, *proof, l1=sparse)._as_given(X, y)

    def score(self, X, y, sample_weight=None, **params) -> float:
        """The score by `scoring` on X [N, D] and y [N]; it is the accuracy only if that says so."""
        metadata_routing._raise_for_params(params, self, "score")
        given = params | ({} if sample_weight is None else {"sample_weight": sample_weight})
        if metadata_routing._routing_enabled():
            given = metadata_routing.process_routing(self, "score", **given).scorer.score
        own = copy.copy(self)._as_given(None, None)  # few scorers take arrays of other libraries
        given = {name: to_numpy(values) for name, values in given.items()}
        return _scorer(self.scoring, own.classes_)(own, to_numpy(X), to_numpy(y), **given)

    def get_metadata_routing(self) -> metadata_routing.MetadataRouter:
        """What is passed on: by `fit` to the splitter and the scorer, by `score` to the scorer."""
        scored = metadata_routing.MethodMapping().add(caller="score", callee="score")
        scored.add(caller="fit", callee="score")
        split = metadata_routing.MethodMapping().add(caller="fit", callee="split")
        router = metadata_routing.MetadataRouter(owner=self).add_self_request(self)
        router.add(splitter=self.cv, method_mapping=split)
        return router.add(scorer=_scorer(self.scoring), method_mapping=scored)

    def _routed(self, weights, params):
        """The keywords of `fit` for the splitter, and for the scorer."""
        metadata_routing._raise_for_params(params, self, "fit", allow={"groups"})
        if not metadata_routing._routing_enabled():
            return params, weights
        routed = metadata_routing.process_routing(self, "fit", **weights, **params)
        return routed.splitter.split, routed.scorer.score

    def _scores(self, path, examples, folds, given):
        """The score of every trial on the examples that its fold leaves out: [folds, n].

        It is NaN where the scorer fails, with one warning for all of them.
        """
        scorer, failures = _scorer(self.scoring, examples.classes), []
        scores = np.full((len(folds), len(path.b) // len(folds)), np.nan)
        for trial, (fold, _) in enumerate(np.ndindex(scores.shape)):
            test = folds[fold][1]
            model, weights = SoftmaxRegression(), (path.W[trial], path.b[trial])
            model._adopt(examples, *weights, np.nan).n_features_in_ = self.n_features_in_
            own = _check_method_params(examples.x, given, indices=test)
            labels = examples.names[test]
            try:
                scores.flat[trial] = scorer(model, examples.x[test], labels, **own)
            except Exception as error:  # scorers are anyone's code
                failures.append((fold, error))
        if failures:
            fold, error = failures[0]
            found = f"in {len(failures)} of {scores.size} fits, first in fold {fold}: {error!r}"
            if np.isnan(scores).all():
                raise ValueError(f"No penalty can be chosen: the scorer failed {found}") from error
            warnings.warn(f"The score is NaN where the scorer failed, {found}", stacklevel=4)
        elif np.isnan(scores).all():
            warnings.warn(
                "Every score is NaN, so that the strongest penalty is chosen: use a scorer and "
                "folds on which there is a score.",
                stacklevel=4,
            )
        return scores


def _best(scores, l2):
    """The index of the best score, of equals the strongest penalty; NaN is the worst."""
    scores = np.nan_to_num(scores, nan=-np.inf)
    return max(range(len(l2)), key=lambda j: (scores[j], l2[j]))


_OF_ALL_ROWS = "_CVIterableWrapper", "PredefinedSplit"  # they hold row numbers


def _split(cv, X, y, given, examples):
    """The folds, pairs (train, test) of row numbers among the examples that count.

    A number of folds, and splitters of scikit-learn, divide these. Row numbers that are given, or
    come from other splitters, are of all M rows: the absent ones are left out.
    """
    there, names = examples.there, examples.names
    splitter = check_cv(cv, names, classifier=True)
    kind = type(splitter)
    if kind.__module__.startswith("sklearn.") and kind.__name__ not in _OF_ALL_ROWS:
        given = _check_method_params(X, given, indices=np.flatnonzero(there))
        return list(splitter.split(examples.x, names, **given))
    place, everything = np.cumsum(there) - 1, np.arange(len(there))

    def kept(rows):
        return place[everything[rows][there[rows]]]

    return [(kept(train), kept(test)) for train, test in splitter.split(X, y, **given)]


def _counts(folds, num_examples):
    """How often each example counts in each fold and, last, once for all: [N, folds + 1]."""
    everything = np.arange(num_examples)
    trains = [np.bincount(everything[train], minlength=num_examples) for train, _ in folds]
    return np.stack([*trains, np.ones(num_examples)], 1).astype(np.int32)


def _penalties(Cs, l2s, totals, num_classes):
    """l2 for each fold and, last, for all examples: [folds + 1, n]. totals: sums of weights."""
    if l2s is not None:
        return np.tile(l2s, (len(totals), 1))
    return swap_C_and_l2(Cs, totals[:, None], num_classes)


def _check_folds(examples, counts):
    for fold, count in enumerate(counts.T):
        present = np.unique(examples.labels[examples.weights * count > 0])
        if len(present) < 2:
            names = ", ".join(map(repr, examples.classes[examples.known][present].tolist()))
            raise ValueError(
                f"Fold {fold} trains on examples of {len(present)} class ({names}); a classifier "
                "needs 2 with weight. Shuffle the examples, or use StratifiedKFold or other folds."
            )


def _scorer(scoring, classes=None):
    """The scorer; one that takes `labels` is told all classes, as the data may lack some."""
    scorer = get_scorer("accuracy" if scoring is None else scoring)
    function, own = getattr(scorer, "_score_func", None), getattr(scorer, "_kwargs", {})
    known = inspect.signature(function).parameters if callable(function) else ()
    if classes is None or "labels" not in known:
        return scorer
    more = {"labels": classes}
    if len(classes) == 2 and "pos_label" in known and own.get("average", "binary") == "binary":
        more["pos_label"] = classes[1]
    scorer = copy.copy(scorer)
    scorer._kwargs = more | own
    return scorer


def _check_penalties(Cs, l2s):
    """The penalties to try: (Cs [n], None) or (None, l2s [n]), float64; Cs may be their number.

    Raises ValueError for invalid penalties, and where both are given.
    """
    number = isinstance(Cs, int | np.integer) and not isinstance(Cs, bool)
    if l2s is not None:
        if not number or Cs != 10:
            raise ValueError("Cs and l2s are two names for the same penalties: give one of them.")
        return None, _grid("l2s", l2s, lambda l2: check_penalty(1.0, l2))
    if number:
        require("Cs", Cs, "numbers above 0, or how many of them", Cs > 0)
        return np.logspace(-4, 4, Cs), None
    return _grid("Cs", Cs, lambda C: check_penalty(C, None)), None


def _grid(name, values, check_one):
    grid = np.asarray(values)
    grid = grid.astype(np.float64) if grid.dtype.kind in "iuf" else np.zeros(0)
    require(name, values, "a list of numbers", grid.ndim == 1 and grid.size > 0)
    for value in grid:
        check_one(value)
    return grid
