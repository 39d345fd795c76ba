"""What stands behind a fitted model: errors of its weights, tests, leave-one-out predictions.

Everything is read off the Hessian at the optimum θ of F(θ) = Σᵢ wᵢ CE(xᵢ; θ) + λ/2 · ‖W‖², in
float64 on the host. An example with probabilities p contributes wᵢ · (diag(p) − ppᵀ) ⊗ x̃ᵢx̃ᵢᵀ,
where x̃ is x with a 1 for the intercept. A constant added to all classes changes no probability,
so that H has no inverse in that direction: it is taken over the C − 1 directions A that add up to
zero, θ = Aγ. Weights are numbers of copies; class weights multiply losses.

Without a penalty (C = inf) the errors are those of maximum likelihood. With one, "observed" is the
covariance of the posterior that a normal prior of variance 1/λ gives, and the others are the
spread of the estimates around the penalised truth; neither knows of the bias that the penalty
brings. Selecting the penalty or the features on the same data makes all of them too small.

Sources: A. Agresti, "Categorical data analysis" (2013), chapter 8; H. White, "Maximum likelihood
estimation of misspecified models" (1982), for the robust covariance; K. Rad and A. Maleki, "A
scalable estimate of the out-of-sample prediction error" (2020), for leave-one-out.
"""

import dataclasses
import html
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import linalg, special, stats

from softmax_jax import host, losses
from softmax_jax.data.dataset import html_table

COVARIANCES = "observed", "HC0", "HC1", "clustered"
_LARGEST_MOVE = 0.5  # standard errors: beyond it, the weights are not at the optimum of the data
_STEPS, _SMALL = 20, 1e-9  # of Newton's method, in standard errors
_ENOUGH = 1e-4  # of a refit without one example, in standard errors
_INFLUENTIAL = 1e-3  # squared standard errors: what moves the weights by less is not refitted
_REFITS = 2e11  # multiplications of numbers that refits without one example may take
_MOST_STEPS = 100  # of Newton's method from zero weights
_ROUNDING = 1e-14  # of an objective, relative
_PENALISED = 1e-3  # of the parameters that a penalty takes away: less is none
_SINGULAR = 1e-13  # a reciprocal condition number below which a Hessian counts as singular


class _Fit(NamedTuple):
    """A model at its optimum. K = D + 1 columns, or D without an intercept.

    z [N, K]: the features less `mean`, divided by `scale`, and ones. theta [K, C]: their weights.
    penalty [K]: λ of each. weights, copies [N]: with the class weights, and without. basis
    [C, C − 1]: orthonormal columns that add up to zero. l2: the penalty of the mean loss. hessian:
    its Cholesky factor, of [(C − 1) · K] columns, class by class.
    """

    z: Float[np.ndarray, "N K"]
    y: Int[np.ndarray, " N"]
    weights: Float[np.ndarray, " N"]
    copies: Float[np.ndarray, " N"]
    theta: Float[np.ndarray, "K C"]
    penalty: Float[np.ndarray, " K"]
    basis: Float[np.ndarray, "C free"]
    mean: Float[np.ndarray, " D"]
    scale: Float[np.ndarray, " D"]
    class_weight: Float[np.ndarray, " C"]
    classes: list
    features: list
    l2: float
    hessian: Any = None

    @property
    def has_intercept(self):
        return self.z.shape[1] > len(self.mean)

    @property
    def columns(self):
        """The names of the columns of z."""
        return [*self.features, *["intercept"] * self.has_intercept]

    @property
    def probabilities(self):
        """As trained, [N, C]."""
        return special.softmax(self.z @ self.theta, axis=1)


def table(
    fitted: Any,
    X: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    groups: Any = None,
    covariance: str = "observed",
    reference: int | None = None,
) -> list[dict]:
    """The weights of a model with their standard errors, z values, p values and 95 % intervals.

    Args:
      fitted: a fitted estimator, or a `Classifier` of a run that ended at its optimum. Its weights
        are polished by Newton's method, so that float32 and the tolerance of the fit do not show.
      X: the training examples [N, D], raw: a weight belongs to one unit of its feature.
      y: their labels [N].
      sample_weight: how many copies of it each example stands for [N].
      groups: for "clustered", the group of each example [N]; examples of a group may depend on
        each other in any way.
      covariance: "observed", the inverse Hessian; "HC0", robust to a wrong model,
        H⁻¹ (Σ gᵢgᵢᵀ) H⁻¹ with the gradients gᵢ of the losses; "HC1", N / (N − parameters) times
        that; "clustered", with gradients summed over groups, G/(G − 1) · (N − 1)/(N − parameters)
        times that.
      reference: the position of a class: contrasts to it, of the other C − 1 classes, as
        multinomial logit tables have them (their exponentials are odds ratios). None: of all C
        classes, against their mean.

    Returns:
      For each class and feature, the intercept last, a dict of class, feature, estimate,
      standard_error, z, p_value, low, high.

    Raises:
      ValueError: the model is not at the optimum of these data; the features depend on each other
        linearly and there is no penalty, or the classes are separable; the Hessian does not fit
        the memory; arguments of other shapes or kinds.
    """
    _check_covariance(covariance, groups)
    fit = _at_optimum(fitted, X, y, sample_weight)
    num_classes = len(fit.classes)
    if reference is None:
        shown, contrasts = range(num_classes), np.eye(num_classes) - 1 / num_classes
    elif type(reference) is not bool and reference in range(num_classes):
        shown = [c for c in range(num_classes) if c != reference]
        contrasts = np.eye(num_classes)[shown] - np.eye(num_classes)[reference]
    else:
        raise ValueError(
            f"reference={reference!r} is not the position of a class: 0 to {num_classes - 1} are."
        )
    units = _in_raw_units(fit)
    estimates = contrasts @ (units @ fit.theta).T
    errors = _standard_errors(_covariance(fit, covariance, groups), units, contrasts @ fit.basis)
    return _rows([fit.classes[c] for c in shown], fit.columns, estimates, errors)


def _rows(classes, names, estimates, errors):
    """The table of estimates and standard errors [classes, names], a dict per entry."""
    half = stats.norm.ppf(0.975)
    rows = []
    for label, own, its in zip(classes, estimates, errors, strict=True):
        for name, estimate, error in zip(names, own, its, strict=True):
            z = estimate / error if error > 0 else np.nan
            rows.append(
                {
                    "class": label,
                    "feature": name,
                    "estimate": float(estimate),
                    "standard_error": float(error),
                    "z": float(z),
                    "p_value": float(2 * stats.norm.sf(abs(z))),
                    "low": float(estimate - half * error),
                    "high": float(estimate + half * error),
                }
            )
    return rows


@dataclasses.dataclass(frozen=True)
class Summary:
    """A model's table and how well it fits: printed as text, in a notebook as HTML.

    Attributes:
      rows: as `table` has them, and `odds_ratio`, exp(estimate): what one unit of the feature
        multiplies the odds of the class against the reference by (without a reference, against the
        geometric mean of all classes).
      num_examples: Σ sample weights.
      log_likelihood: Σ log p(label), with the probabilities of `predict_proba`.
      null_log_likelihood: that of the classes' frequencies alone.
      degrees_of_freedom: the effective number of parameters, tr(H⁻¹H₀) with the Hessian H and H₀,
        that without the penalty, over the C − 1 free classes: (C − 1) · (D + 1) without a penalty,
        the less the more of one. It does not count what was chosen on the same data.
      aic, bic: −2 · log_likelihood + 2 or log(num_examples) · degrees_of_freedom.
      pseudo_r2: McFadden's, 1 − log_likelihood / null_log_likelihood.
      l2: the penalty of the mean loss.
      covariance, reference: as in `table`; the reference is the label of the class.
    """

    rows: list[dict]
    num_examples: float
    log_likelihood: float
    null_log_likelihood: float
    degrees_of_freedom: float
    aic: float
    bic: float
    pseudo_r2: float
    l2: float
    covariance: str
    reference: Any = None

    def _facts(self):
        against = (
            "the mean of all classes" if self.reference is None else host.shown(self.reference)
        )
        return {
            "examples": f"{self.num_examples:,.6g}",
            "log-likelihood": f"{self.log_likelihood:.4f}",
            "null log-likelihood": f"{self.null_log_likelihood:.4f}",
            "McFadden's R²": f"{self.pseudo_r2:.4f}",
            "effective parameters": f"{self.degrees_of_freedom:.2f}",
            "AIC": f"{self.aic:.2f}",
            "BIC": f"{self.bic:.2f}",
            "l2": f"{self.l2:.4g}",
            "covariance": self.covariance,
            "against": against,
        }

    def _tables(self):
        """(class, rows of cells) of each class."""
        for label in dict.fromkeys(row["class"] for row in self.rows):
            own = [row for row in self.rows if row["class"] == label]
            yield (
                str(label),
                [
                    [
                        host.shown(row["feature"]).replace("\n", r"\n"),
                        *(f"{row[name]:.4f}" for name in ("estimate", "standard_error")),
                        f"{row['z']:.3f}",
                        f"{row['p_value']:.3f}",
                        *(f"{row[name]:.4f}" for name in ("low", "high")),
                        f"{row['odds_ratio']:.4g}",
                    ]
                    for row in own
                ],
            )

    _HEADS = ("feature", "estimate", "std err", "z", "P>|z|", "[0.025", "0.975]", "odds ratio")

    def __str__(self) -> str:
        facts, tables = self._facts(), [*self._tables()]
        width = max(map(len, facts))
        lines = ["Softmax regression", *(f"  {k:{width}}  {v}" for k, v in facts.items())]
        head, *every = host.aligned([self._HEADS, *(row for _, rows in tables for row in rows)])
        for label, rows in tables:
            own, every = every[: len(rows)], every[len(rows) :]
            lines += ["", f"class {host.shown(label)}", *(f"  {line}" for line in (head, *own))]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        facts = (map(html.escape, fact) for fact in self._facts().items())
        lines = "".join(f"<tr><td>{name}</td><td>{text}</td></tr>" for name, text in facts)
        parts = [f"<table>{lines}</table>"]
        for label, rows in self._tables():
            parts.append(f"<p><b>class {html.escape(host.shown(label))}</b></p>")
            parts.append(html_table(dict(zip(self._HEADS, row, strict=True)) for row in rows))
        return "".join(parts)


def summary(
    fitted: Any,
    X: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    groups: Any = None,
    covariance: str = "observed",
    reference: int | None = 0,
) -> Summary:
    """The `table` of a model with its likelihood, AIC, BIC and R²; `print` it.

    Without a penalty all of it is what statsmodels' `MNLogit` has.

    Args:
      fitted, X, y, sample_weight, groups, covariance, reference: as in `table`; the reference is
        the first class by default.

    Raises:
      ValueError: as `table` does.
    """
    given = {"groups": groups, "covariance": covariance, "reference": reference}
    rows = table(fitted, X, y, sample_weight=sample_weight, **given)
    fit = _at_optimum(fitted, X, y, sample_weight)
    with np.errstate(over="ignore"):
        rows = [row | {"odds_ratio": float(np.exp(row["estimate"]))} for row in rows]
    likelihood, null = (_log_likelihood(fit, scores) for scores in (_true_scores(fit), None))
    parameters, N = _effective_parameters(fit), fit.copies.sum()
    return Summary(
        rows=rows,
        num_examples=float(N),
        log_likelihood=likelihood,
        null_log_likelihood=null,
        degrees_of_freedom=parameters,
        aic=-2 * likelihood + 2 * parameters,
        bic=float(-2 * likelihood + np.log(N) * parameters),
        pseudo_r2=1 - likelihood / null,
        l2=fit.l2,
        covariance=covariance,
        reference=None if reference is None else fit.classes[reference],
    )


def marginal_effects(
    fitted: Any,
    X: Any,
    y: Any,
    *,
    sample_weight: Any = None,
    groups: Any = None,
    covariance: str = "observed",
) -> list[dict]:
    """Average marginal effects: by how much p(class) changes per unit of a feature, in the mean.

    The mean over the examples of ∂p(c)/∂x_d = p(c) · (W_dc − Σ_k p(k) W_dk), with errors by the
    delta method for these examples (they count as given, not as drawn). Of a feature that is 0 or 1
    it is the derivative, too, and not the difference. The effects on the C classes add up to zero.

    Args:
      fitted, X, y, sample_weight, groups, covariance: as in `table`.

    Returns:
      The rows of `table` with the effect as estimate, for all C classes, without the intercept.

    Raises:
      ValueError: as `table` does.
    """
    _check_covariance(covariance, groups)
    fit = _at_optimum(fitted, X, y, sample_weight)
    C, D = len(fit.classes), len(fit.mean)
    p, share = special.softmax(_true_scores(fit), axis=1), fit.copies / fit.copies.sum()
    W = fit.theta[:D] / fit.scale[:, None]
    found = _covariance(fit, covariance, groups)
    effects, errors = np.empty((C, D)), np.empty((C, D))
    for d in range(D):
        above = W[d] - (p @ W[d])[:, None]  # [N, C]
        effects[:, d] = share @ (p * above)
        # Through p: of the effect on class o by the scores of class c.
        slope = -(share[:, None] * p)[:, :, None] * (above[:, :, None] + above[:, None, :])
        slope = slope * p[:, None, :]
        slope[:, range(C), range(C)] += share[:, None] * p * above
        jacobian = np.einsum("nk,noc->ock", fit.z, slope, optimize=True)
        direct = (share[:, None] * p).T @ p
        jacobian[:, :, d] += (np.diag(share @ p) - direct) / fit.scale[d]
        along = np.einsum("ock,ca->oak", jacobian, fit.basis).reshape(C, -1)
        wide = found.reshape(along.shape[1], -1)
        errors[:, d] = np.sqrt(np.maximum((along @ wide * along).sum(1), 0))
    return _rows(fit.classes, fit.features, effects, errors)


def wald_test(
    fitted: Any,
    X: Any,
    y: Any,
    *,
    features: Sequence[str | int],
    sample_weight: Any = None,
    groups: Any = None,
    covariance: str = "observed",
) -> dict:
    """Wald's test that none of the features tells the classes apart.

    θᵀ Cov⁻¹ θ of their (C − 1) · n weights, as chi-squared. With a penalty, which pulls the weights
    to zero, it is no test at the stated level.

    Args:
      features: names or positions of the features, tested together.
      fitted, X, y, sample_weight, groups, covariance: as in `table`.

    Returns:
      statistic, degrees_of_freedom, p_value.

    Raises:
      ValueError: as `table` does; a feature that is none, or twice; fewer groups than weights.
    """
    _check_covariance(covariance, groups)
    fit = _at_optimum(fitted, X, y, sample_weight)
    tested = _positions(fit, features)
    gamma = (fit.theta[tested] @ fit.basis).T.ravel()
    wide = _covariance(fit, covariance, groups)[:, tested][..., tested]
    wide = wide.reshape(len(gamma), -1)
    if np.linalg.matrix_rank(wide, hermitian=True) < len(gamma):
        raise ValueError(
            f"The covariance of the {len(gamma)} weights is singular: test fewer features, or "
            "give more groups."
        )
    return _chi_squared(gamma @ np.linalg.solve(wide, gamma), len(gamma))


def likelihood_ratio_test(
    fitted: Any, X: Any, y: Any, *, features: Sequence[str | int], sample_weight: Any = None
) -> dict:
    """The likelihood-ratio test that none of the features tells the classes apart.

    The model is fitted again without them; twice the difference of the log-likelihoods is taken as
    chi-squared.

    Args:
      features: names or positions of the features, tested together.
      fitted, X, y, sample_weight: as in `table`.

    Returns:
      statistic, degrees_of_freedom, p_value.

    Raises:
      ValueError: as `table` does; a feature that is none, or twice; a penalty or class weights,
        with which the statistic has no known distribution.
    """
    fit = _at_optimum(fitted, X, y, sample_weight)
    tested = _positions(fit, features)
    free, K = fit.basis.shape[1], fit.z.shape[1]
    if _effective_parameters(fit) < (1 - _PENALISED) * free * K or np.ptp(fit.class_weight):
        raise ValueError(
            "A likelihood-ratio test needs a fit without a penalty (C=inf, or l2=0) and without "
            "class weights: with them nobody knows the distribution of the statistic."
        )
    rest = np.setdiff1d(np.arange(K), tested)
    if not len(rest):
        raise ValueError("A likelihood-ratio test leaves at least one feature or the intercept.")
    start = np.zeros((len(rest), len(fit.classes)))
    smaller = fit._replace(z=fit.z[:, rest], theta=start, penalty=fit.penalty[rest])
    statistic = 2 * (_objective(_minimised(smaller)) - _objective(fit))
    return _chi_squared(max(0.0, statistic), free * len(tested))


def _check_covariance(covariance, groups):
    if covariance not in COVARIANCES:
        raise ValueError(f"covariance={covariance!r} is none of {', '.join(COVARIANCES)}.")
    if (groups is None) == (covariance == "clustered"):
        raise ValueError('covariance="clustered" needs groups, and no other takes them.')


def _chi_squared(statistic, degrees):
    p_value = float(stats.chi2.sf(statistic, degrees))
    found = {"statistic": float(statistic), "degrees_of_freedom": degrees}
    return found | {"p_value": p_value}


def _positions(fit, features):
    """The columns of z that the features mean."""
    listed = isinstance(features, Sequence | np.ndarray) and not isinstance(features, str)
    if not listed or not len(features):
        raise ValueError("features must be a list of names or positions of features, not empty.")
    found = []
    for feature in features:
        whole = isinstance(feature, int | np.integer) and not isinstance(feature, bool)
        is_position = whole and 0 <= feature < len(fit.mean)
        if not is_position and feature not in fit.features:
            raise ValueError(
                f"The model has no feature {host.brief(feature)}; it has "
                f"{host.brief(fit.features)}, and positions from 0 to {len(fit.mean) - 1}."
            )
        found.append(int(feature) if is_position else fit.features.index(feature))
    if len(set(found)) < len(found):
        raise ValueError(f"features names one twice: {host.brief(list(features))}.")
    return np.array(found)


def _true_scores(fit):
    """The scores [N, C] of `predict_proba`: corrected for class weights."""
    return fit.z @ fit.theta - losses.weight_offsets(fit.class_weight)


def _log_likelihood(fit, scores):
    """Σ log p(label); without scores, that of the classes' frequencies."""
    if scores is None:
        counts = np.bincount(fit.y, fit.copies)
        return float(special.xlogy(counts, counts / counts.sum()).sum())
    log_p = special.log_softmax(scores, axis=1)
    return float(fit.copies @ log_p[np.arange(len(fit.y)), fit.y])


def _effective_parameters(fit):
    """tr(H⁻¹H₀) = their number − tr(H⁻¹ penalty)."""
    penalty = np.tile(fit.penalty, fit.basis.shape[1])
    inverse = linalg.cho_solve(fit.hessian, np.eye(len(penalty)))
    return float(len(penalty) - inverse.diagonal() @ penalty)


def _objective(fit):
    log_p = special.log_softmax(fit.z @ fit.theta, axis=1)[np.arange(len(fit.y)), fit.y]
    return (fit.penalty @ fit.theta**2).sum() / 2 - fit.weights @ log_p


def _minimised(fit):
    """The optimum from anywhere, by Newton's method with halved steps."""
    for _ in range(_MOST_STEPS):
        step, moved, _ = _newton_step(fit)
        if moved < _SMALL:
            return fit
        most = _objective(fit) + _ROUNDING * abs(_objective(fit))
        for halvings in range(_MOST_STEPS):
            further = fit._replace(theta=fit.theta + step / 2**halvings)
            if _objective(further) <= most:
                break
        fit = further
    return fit


def leave_one_out(
    fitted: Any, X: Any, y: Any, *, sample_weight: Any = None
) -> Float[np.ndarray, "N C"]:
    """Probabilities [N, C] of each training example by a model fitted without it.

    Few are refitted. For the others it is one step of Newton's method from the optimum θ: without
    example i the scores of i become

        sᵢ + M (I − wᵢ Sᵢ M)⁻¹ wᵢ (pᵢ − yᵢ),   M = x̃ᵢ H⁻¹ x̃ᵢᵀ [C, C],   Sᵢ = diag(pᵢ) − pᵢpᵢᵀ

    which is exact up to the change of the Hessian. The examples whose absence moves the model most
    are refitted instead, as many as 2·10¹¹ multiplications allow: where there are a few hundred,
    all that matter; where there are tens of thousands, few, but there one example moves little.

    Of an example that stands for several copies one is left out. The penalty of the sum of losses,
    and the mean and scale of features, stay those of all examples. As in `predict_proba`, class
    weights are corrected for.

    Args:
      fitted, X, y, sample_weight: as in `table`; the mean log probability of the labels estimates
        the log-likelihood on new examples.

    Raises:
      ValueError: as `table` does.
    """
    fit = _at_optimum(fitted, X, y, sample_weight)
    free, K = fit.basis.shape[1], fit.z.shape[1]
    inverse = linalg.cho_solve(fit.hessian, np.eye(free * K)).reshape(free, K, free, K)
    M = np.empty((len(fit.z), free, free))
    for a, b in zip(*np.tril_indices(free), strict=True):
        M[:, a, b] = M[:, b, a] = np.einsum("nk,nk->n", fit.z @ inverse[a, :, b], fit.z)
    p = fit.probabilities
    S = _curvature(p, fit.basis)
    residual = _residual(p, fit.y) @ fit.basis
    one = fit.class_weight[fit.y] * np.minimum(fit.copies, 1)
    left = np.eye(free) - one[:, None, None] * S @ M
    step = (M @ np.linalg.solve(left, (one[:, None] * residual)[..., None]))[..., 0]
    scores = fit.z @ fit.theta + step @ fit.basis.T
    influence = one * (step * residual).sum(1)  # the squared length of the step of the weights
    refits = int(_REFITS / (_STEPS * len(fit.z) * (free * K) ** 2))
    for i in np.argsort(-influence)[:refits]:
        if influence[i] > _INFLUENTIAL:
            scores[i] = _scores_without(fit, i, one[i], scores[i])
    return special.softmax(scores - losses.weight_offsets(fit.class_weight), axis=1)


def _scores_without(fit, i, weight, otherwise):
    """The scores [C] of example i by a refit without it, or without one copy of it."""
    weights = fit.weights.copy()
    weights[i] -= weight
    rest = fit._replace(weights=weights)
    for _ in range(_STEPS):
        try:
            step, moved, _ = _newton_step(rest)
        except ValueError:  # without it, nothing holds the weights
            return otherwise
        rest = rest._replace(theta=rest.theta + step)
        if moved < _ENOUGH:
            return fit.z[i] @ rest.theta
    return otherwise


def _residual(p, y):
    """p − Y, the gradient of each loss in the scores: [N, C]."""
    return p - np.eye(p.shape[1])[y]


def _curvature(p, basis):
    """Aᵀ (diag(p) − ppᵀ) A of each example, [N, C − 1, C − 1]."""
    along = p @ basis
    return np.einsum("ca,nc,cb->nab", basis, p, basis, optimize=True) - (
        along[:, :, None] * along[:, None, :]
    )


def _gram(z, blocks):
    """Σᵢ blocksᵢ ⊗ zᵢzᵢᵀ: [N, K] and symmetric [N, free, free] -> [free · K, free · K]."""
    free, K = blocks.shape[1], z.shape[1]
    total = np.empty((free, K, free, K))
    for a, b in zip(*np.tril_indices(free), strict=True):
        total[a, :, b] = (z * blocks[:, a, b, None]).T @ z
        total[b, :, a] = total[a, :, b].T
    return total.reshape(free * K, free * K)


def _at_optimum(fitted, X, y, sample_weight) -> _Fit:
    """The model in float64, after as many steps of Newton's method as still move it."""
    if getattr(fitted, "l1_", 0):
        raise ValueError(
            "A model with an L1 penalty has no standard errors: the objective has no second "
            "derivative at its zeros, and which weights are zero was chosen on the same data. Fit "
            "one with l1_ratio=0."
        )
    fit = _read(fitted, X, y, sample_weight)
    free, K = fit.basis.shape[1], fit.z.shape[1]
    needed = 8 * (3 * (free * K) ** 2 + fit.z.size + len(fit.z) * free**2)
    advice = "Use fewer features, or the project's cross-validation and bootstraps."
    host.require_memory(needed, f"The Hessian of {free * K:,} parameters", advice)
    for number in range(_STEPS):
        step, moved, fit = _newton_step(fit)
        if number == 0 and moved > _LARGEST_MOVE * np.sqrt(step.size):
            raise ValueError(
                "The model is not at the optimum of these data: a step of Newton's method moves it "
                f"by {moved:.2g} standard errors. Give the examples and weights of its fit. A "
                "model of SGD, or of a coarse tolerance, has no standard errors: fit it to the "
                "optimum."
            )
        if moved < _SMALL:
            return fit
        fit = fit._replace(theta=fit.theta + step)
    raise ValueError(
        "Newton's method does not settle: the classes are separable, and without a penalty the "
        "optimum is at infinity. Fit with a penalty."
    )


def _newton_step(fit):
    """(step [K, C], its length in standard errors, the fit with its Hessian where it stands).

    No weight moves by more of its own standard errors than the length.
    """
    free, K = fit.basis.shape[1], fit.z.shape[1]
    p = fit.probabilities
    H = _gram(fit.z, fit.weights[:, None, None] * _curvature(p, fit.basis))
    H[np.diag_indices_from(H)] += np.tile(fit.penalty, free)
    fit = fit._replace(hessian=_factor(H))
    residual = fit.weights[:, None] * _residual(p, fit.y)
    gradient = fit.z.T @ residual + fit.penalty[:, None] * fit.theta
    gradient = (gradient @ fit.basis).T.ravel()
    step = -linalg.cho_solve(fit.hessian, gradient)
    moved = np.sqrt(max(0.0, -step @ gradient))
    return step.reshape(free, K).T @ fit.basis.T, moved, fit


def _factor(H):
    """The Cholesky factor of a Hessian."""
    try:
        factor = linalg.cho_factor(H, lower=True)
        norm = np.abs(H).sum(0).max()
        condition, _ = linalg.lapack.dpocon(factor[0], norm, uplo="L")
    except linalg.LinAlgError:
        condition = 0.0
    if condition < _SINGULAR:
        raise ValueError(
            "The Hessian is singular: some weights can move without a change of the objective. "
            "Features that depend on each other linearly (a constant one does, beside the "
            "intercept), or classes that a plane separates, need a penalty."
        )
    return factor


def _covariance(fit, kind, groups):
    """The covariance of γ, [C − 1, K, C − 1, K]."""
    free, K = fit.basis.shape[1], fit.z.shape[1]
    if kind == "observed":
        found = linalg.cho_solve(fit.hessian, np.eye(free * K))
        return found.reshape(free, K, free, K)
    per_copy = fit.class_weight[fit.y, None]
    residual = per_copy * _residual(fit.probabilities, fit.y) @ fit.basis
    N = fit.copies.sum()
    factor = 1.0
    if kind == "clustered":
        groups, there = np.asarray(groups), fit.copies > 0
        if groups.shape != fit.y.shape:
            raise ValueError(f"groups has shape {groups.shape}; needed is [N] = {fit.y.shape}.")
        if any(group is None or group != group for group in groups[there].tolist()):
            raise ValueError("groups has missing values: give each example a group.")
        _, group = np.unique(groups[there], return_inverse=True)
        num_groups = group.max() + 1
        if num_groups < 2:
            raise ValueError("There is one group: a clustered covariance needs two or more.")
        scores = (fit.copies[:, None] * residual)[there, :, None] * fit.z[there, None]
        sums = np.zeros((num_groups, free * K))
        np.add.at(sums, group, scores.reshape(len(scores), -1))
        middle = sums.T @ sums
        factor = num_groups / (num_groups - 1) * (N - 1) / (N - free * K)
    else:
        middle = _gram(fit.z, fit.copies[:, None, None] * residual[:, :, None] * residual[:, None])
        factor = N / (N - free * K) if kind == "HC1" else 1.0
    if not 0 < factor < np.inf:
        raise ValueError(f"{kind} needs more examples than the {free * K:,} parameters.")
    half = linalg.cho_solve(fit.hessian, middle)
    found = factor * linalg.cho_solve(fit.hessian, half.T)
    return found.reshape(free, K, free, K)


def _in_raw_units(fit):
    """The linear map [K, K] from the weights of z to those of the features as they are."""
    D, K = len(fit.mean), fit.z.shape[1]
    units = np.diag(np.append(1 / fit.scale, np.ones(K - D)))
    if K > D:
        units[D, :D] = -fit.mean / fit.scale
    return units


def _standard_errors(covariance, units, contrasts):
    """Of each contrast [L, C − 1] of the weights in raw units: [L, K]."""
    by_class = np.einsum("oa,akbl,ob->okl", contrasts, covariance, contrasts, optimize=True)
    variance = np.einsum("rk,okl,rl->or", units, by_class, units, optimize=True)
    return np.sqrt(np.maximum(variance, 0))


def _read(fitted, X, y, sample_weight) -> _Fit:
    """The model and its data in float64; ValueError for what does not fit together."""
    if not (hasattr(fitted, "coef_") or hasattr(fitted, "W")):
        raise ValueError(f"{host.brief(fitted)} is no model that has been fitted.")
    if np.ndim(y) == 2 and np.shape(y)[1] > 1:
        raise ValueError("Inference needs labels y [N]; of soft labels [N, C] there is none.")
    names = getattr(fitted, "feature_names_in_", None)
    if getattr(fitted, "features", None) is not None:
        names = fitted.features.names
    if hasattr(X, "columns"):
        names = list(X.columns) if names is None else list(names)
        if list(X.columns) != names and {*X.columns} == {*names}:
            raise ValueError("X has its columns in another order than at the fit: sort them.")
    if host.is_sparse(X):
        advice = "Inference needs dense features: use fewer."
        host.require_memory(8 * math.prod(X.shape), "Sparse X as a dense array", advice)
        X = X.toarray()
    x = np.asarray(X)
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    labels = np.asarray(y).reshape(-1)
    is_estimator = hasattr(fitted, "coef_")
    W, b, mean, scale, classes, class_weight = (_of_estimator if is_estimator else _of_classifier)(
        fitted
    )
    N, D = x.shape
    if labels.shape != (N,) or D != len(W):
        raise ValueError(
            f"The model has {len(W)} features; X has shape {(N, D)} and y {labels.shape}."
        )
    if not np.isfinite(x).all():
        raise ValueError("X has values that are not finite.")
    copies = np.ones(N) if sample_weight is None else np.asarray(sample_weight, np.float64)
    if copies.shape != (N,) or not np.isfinite(copies).all() or (copies < 0).any():
        raise ValueError(f"sample_weight must be {N} finite numbers, none of them below 0.")
    number = {label: c for c, label in enumerate(classes)}
    unknown = sorted({str(label) for label in labels.tolist() if label not in number})
    if unknown:
        raise ValueError(f"The model does not know the label {unknown[0]!r}.")
    labels = np.array([number[label] for label in labels.tolist()])
    weights = copies * class_weight[labels]
    absent = np.flatnonzero(np.bincount(labels, weights, len(classes)) == 0)
    if len(absent):
        raise ValueError(f"Class {classes[absent[0]]!r} has no examples that count.")
    intercept = not is_estimator or getattr(fitted, "fit_intercept", True)
    l2 = getattr(fitted, "l2_", None) if is_estimator else None
    own_mean = np.average(x, 0, copies) if intercept else np.zeros(D)
    spread = np.sqrt(np.average((x - own_mean) ** 2, 0, copies))
    own_scale = np.where(spread > 0, spread, 1.0)
    z = (x - own_mean) / own_scale
    # The same scores from z: W, b are the weights of (x − mean) / scale.
    theta = W / scale[:, None] * own_scale[:, None]
    penalised = (scale / own_scale) ** 2
    if intercept:
        z = np.append(z, np.ones((N, 1)), 1)
        theta = np.append(theta, [b + (own_mean - mean) @ (W / scale[:, None])], 0)
        penalised = np.append(penalised, 0.0)
    theta = theta - theta.mean(1, keepdims=True)
    if l2 is None:
        total = _stationary_penalty(z, labels, weights, theta, penalised)
    else:
        total = l2 * weights.sum()
    C = len(classes)
    basis = linalg.helmert(C).T
    names = [f"x{d}" for d in range(D)] if names is None else [str(name) for name in names]
    return _Fit(
        *(z, labels, weights, copies, theta, total * penalised, basis, own_mean, own_scale),
        *(class_weight, list(classes), names, float(total / weights.sum())),
    )


def _stationary_penalty(z, y, weights, theta, penalised):
    """The λ under which the weights are as near to an optimum as they can be: −⟨g, W⟩ / ⟨W, W⟩."""
    p = special.softmax(z @ theta, axis=1)
    gradient = z.T @ (weights[:, None] * _residual(p, y))
    pull = penalised[:, None] * theta
    size = (pull * pull).sum()
    return max(0.0, -(gradient * pull).sum() / size) if size else 0.0


def _of_estimator(fitted):
    """W, b, mean, scale, classes, class weights of an estimator with coef_ and intercept_."""
    coef, b = (np.asarray(v, np.float64) for v in (fitted.coef_, fitted.intercept_))
    if len(coef) == 1:  # the second class minus the first
        coef, b = np.append(-coef, coef, 0) / 2, np.append(-b, b) / 2
    W = coef.T
    classes = np.asarray(fitted.classes_).tolist()
    own = getattr(fitted, "class_weight_", None)
    own = np.ones(len(classes)) if own is None else np.asarray(own, np.float64)
    return W, b, np.zeros(len(W)), np.ones(len(W)), classes, own


def _of_classifier(fitted):
    """The same of a `Classifier`, its biases as trained."""
    W, b = np.asarray(fitted.W, np.float64), np.asarray(fitted.b, np.float64)
    mean, scale = (np.broadcast_to(v, len(W)).astype(np.float64) for v in fitted[2:4])
    own = np.ones(len(b))
    if fitted.class_weight is not None:
        own = np.asarray(fitted.class_weight, np.float64)
        b = b + losses.weight_offsets(own)
    labels = range(len(b)) if fitted.labels is None else fitted.labels.tolist()
    return W, b, mean, scale, list(labels), own
