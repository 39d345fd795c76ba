"""The linear probe of the large papers: 45 values of C from 1e-6 to 1e5, on features of ImageNet.

    python main.py --config=configs/imagenet_probe.py --config.dataset=/data/imagenet_features

The folder has x_train.npy [1281167, D] (float32 or float16), y_train.npy and, as the test split,
x_val.npy and y_val.npy. A tenth of train is held out for the choice (the rows must be shuffled); C
is scikit-learn's, so that l2 = 1 / (C · N) for the N examples that are trained on, without
standardisation. Each optimum is proved to within 1e-4. path.csv has the whole path: l2, objective,
gap, ‖W‖, and the losses and accuracies of train and validation.

In memory the winner is refitted on all of train. Files of more than a quarter of the memory are
passed over, tile by tile, on one device (docs/probes.md), and not joined: give --config.refit=False
with them. On 1,800 synthetic examples of 10 classes (tests/configs_test.py) expect a choice inside
the path.
"""

import numpy as np

from softmax_jax.configs import default

NUM_EXAMPLES = 1_281_167 * 9 // 10  # of ImageNet's train split, less the tenth


def get_config():
    """The default config at the certified optimum, over the penalties of DINOv3's protocol."""
    config = default.get_config()
    config.dataset_fallback = ""
    config.train_split = "train[:90%]"
    config.val_split = "train[90%:]"
    config.test_split = "val"
    config.optimizer = "lbfgs"
    config.num_epochs = 1000
    config.sweep.l2 = tuple(float(f"{1 / (C * NUM_EXAMPLES):.4g}") for C in np.logspace(-6, 5, 45))
    config.refit = True
    return config
