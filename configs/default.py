"""The book's run, concise: softmax regression on Fashion-MNIST.

One Dense layer, minibatch SGD, batch 256, 10 epochs, learning rate 0.1, weights from N(0, 0.01²).

    python main.py --config=configs/default.py

Takes 2 to 3 s on 2 CPU cores (once the images are decoded and the programs are compiled). Expect
a validation loss of 0.48 and a validation accuracy of .83. Without Fashion-MNIST it trains on the
embedded digits instead, in about a second more, and reaches .88 there.

This file lists every field; the other configs change a few of them. From the shell:
--config.learning_rate=0.3 sets one, --config.sweep.learning_rate=0.03,0.1,0.3 compares several.
"""

from ml_collections import config_dict


def get_config():
    """The default config: every field with its meaning."""
    config = config_dict.ConfigDict()

    # Data.
    config.dataset = "fashion_mnist"  # 'fashion_mnist', 'digits', or a set prepared by TFDS
    config.dataset_fallback = "digits"  # if Fashion-MNIST is not to be had; '': an error instead
    config.data_dir = ""  # folder to look into first; '': TFDS_DATA_DIR, ~/tensorflow_datasets
    config.train_split = "train"  # split strings as in TFDS: 'train[:50000]', 'train[:80%]'
    config.val_split = "test"  # the book validates on the test images
    config.test_split = ""  # read once, for the selected model; '': none

    # Model and loss.
    config.model = "concise"  # 'concise' (flax.linen.Dense) or 'scratch' (W and b by hand)
    # 'cross_entropy' (from logits), or the book's from-scratch forms on the naive softmax:
    # 'cross_entropy_from_probabilities' (indexing) and 'cross_entropy_by_definition'.
    config.loss = "cross_entropy"
    config.init_scale = 0.01  # standard deviation of the initial weights; biases start at 0
    # Of the matrix products in training and validation: 'float32' or 'bfloat16' (with float32
    # sums). The test figures are those of params.npz in float32.
    config.precision = "float32"

    # Training.
    config.batch_size = 256  # examples in a minibatch
    config.num_epochs = 10  # passes over the training examples
    config.learning_rate = 0.1  # of SGD
    config.momentum = 0.0  # of SGD, from 0 to below 1
    config.l2 = 0.0  # the objective is loss + l2/2 · ‖W‖²; the bias is not penalised
    # What an example of each class weighs in the objective: None (all the same), 'balanced'
    # (inversely to the size of the class), or a tuple of one number per class.
    config.class_weight = config_dict.placeholder(object)
    config.seed = 0  # of the initial weights and of the order of the examples

    # A sweep: every field here is an axis, an empty one means the single value above.
    config.sweep = config_dict.ConfigDict()
    config.sweep.learning_rate = ()
    config.sweep.momentum = ()
    config.sweep.l2 = ()
    config.sweep.init_scale = ()
    config.sweep.batch_size = ()
    config.sweep.seed = ()
    # Both judge settings within the train split (val_split then serves the pictures only), and end
    # in a refit of the chosen setting on the whole train split.
    config.folds = 0  # K of K-fold cross-validation; 0: none
    config.bootstraps = 0  # R bootstrap draws, evaluated out of bag; 0: none
    config.chunk = 0  # trials at once on the device; 0: as many as its memory holds

    # Selection among the settings.
    config.select = "best"  # 'best' mean, or 'one_se': the simplest within one standard error
    # 'val_loss', 'val_accuracy', 'val_balanced_accuracy' or 'val_top5'.
    config.select_metric = "val_loss"
    config.select_epoch = "last"  # 'last', or 'best': each trial at its own best epoch

    return config.lock()
