"""A decision that is not argmax: is the tumour malignant, where a miss costs ten false alarms?

python main.py --config=configs/medical.py

"""

from configs import default


def get_config():
    """The default config on scikit-learn's breast-cancer set, with costs, over bootstrap draws."""
    config = default.get_config()
    config.dataset = "breast_cancer"
    config.val_split = config.test_split = "test"
    config.standardize = True
    config.optimizer = "lbfgs"
    config.tolerance = 1e-5
    config.num_epochs = 200
    config.l2 = 0.01
    config.bootstraps = 100
    config.cost_matrix = ((0, 10), (1, 0))  # rows: malignant, benign; columns: called so
    return config
