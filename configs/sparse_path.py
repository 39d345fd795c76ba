"""Which features are enough: a path of 100 values of l1, chosen by the one-SE rule over 10 folds.

    python main.py --config=configs/sparse_path.py
    python main.py --config=configs/sparse_path.py --config.dataset=table.csv

scikit-learn's breast-cancer set, standardised: 30 features of 455 examples to train on. The path
goes from the smallest l1 that leaves no weight down to a thousandth of it, each trial to within
1e-4 of its optimum by the duality gap; the choice is the largest l1 whose loss over the folds is
within one standard error of the best. Expect l1 = 0.014 and a loss of 0.111 (the best, at l1 =
0.002, has 0.085), 9 of the 30 features, and a test accuracy of .974, 95 % interval [.925, .991]. It
takes about a minute on 2 CPU cores the first time, most of it for compiling.
coefficients.csv lists what is left by name, and path.png shows the norms of the weights, how many
features there are, and the loss with its band, along the path.
"""

from softmax_jax.configs import default


def get_config():
    """The default config over a path of l1 on scikit-learn's breast-cancer set, with folds."""
    config = default.get_config()
    config.dataset = "breast_cancer"
    config.val_split = config.test_split = "test"
    config.standardize = True
    config.optimizer = "lbfgs"
    config.num_epochs = 20_000
    config.l1_path = 100
    config.folds = 10
    config.select = "one_se"
    return config
