"""A linear probe: the certified optimum over a path of l2, for features of your own.

python main.py --config=configs/probe.py --config.dataset=features.npz
python main.py --config=configs/probe.py

"""

from configs import default


def get_config():
    """The default config with standardised features, L-BFGS over a path of l2, and a refit."""
    config = default.get_config()
    config.train_split = config.val_split = config.test_split = "auto"
    config.standardize = True
    config.optimizer = "lbfgs"
    config.num_epochs = 1000
    config.l2_path = 16
    config.refit = True
    config.predictions = True
    return config
