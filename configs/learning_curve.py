"""What more data would bring, and which labels to doubt: at the optimum, on Fashion-MNIST.

    python main.py --config=configs/learning_curve.py

Trains to the certified optimum on 10 sizes of nested subsets, 3 draws of each, as one program, and
on 5 folds that judge each other's labels. Takes a minute or two on 2 CPU cores. Expect a validation
accuracy of .714 with 100 images, .835 with 10,000 and .846 with all 60,000, on a power law of the
error of 0.142 + 0.86 n^-0.39: five times the data would be worth about another half per cent.
audit.csv lists the labels that the others make least probable; of the first 36, roughly a quarter
are plausibly wrong to the eye.
"""

from softmax_jax.configs import default


def get_config():
    """The default config at the optimum, with both studies."""
    config = default.get_config()
    config.dataset_fallback = ""  # the sizes are those of Fashion-MNIST
    config.optimizer = "lbfgs"
    config.num_epochs = 1000
    config.l2 = 1e-4
    config.learning_curve.sizes = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 40_000, 60_000)
    config.audit_folds = 5
    return config
