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
    # Features with mean 0 and variance 1 over the training examples (of a fold, over its own).
    config.standardize = False

    # Model and loss.
    config.model = "concise"  # 'concise' (flax.linen.Dense) or 'scratch' (W and b by hand)
    # 'cross_entropy' (from logits), or the book's from-scratch forms on the naive softmax:
    # 'cross_entropy_from_probabilities' (indexing) and 'cross_entropy_by_definition'.
    # For very many classes, without ever holding the logits of a batch: 'linear_cross_entropy', and
    # on samples 'sampled_softmax', 'noise_contrastive', 'negative_sampling'.
    config.loss = "cross_entropy"
    config.num_samples = 0  # classes that a loss on samples draws for a batch
    config.init_scale = 0.01  # standard deviation of the initial weights; biases start at 0
    # Of the matrix products in training and validation: 'float32', 'bfloat16' (of weights, biases
    # and features, with float32 sums; the test figures are those of params.npz in float32) or
    # 'float64' (of everything).
    config.precision = "float32"

    # Training.
    config.optimizer = "sgd"  # or 'lbfgs': the certified optimum; an iteration is then an epoch
    config.tolerance = 1e-4  # of 'lbfgs': the relative gap to the optimum at which a trial stops
    config.batch_size = 256  # examples in a minibatch
    config.num_epochs = 10  # passes over the training examples
    config.learning_rate = 0.1  # of SGD
    config.momentum = 0.0  # of SGD, from 0 to below 1
    # The rate over training: 'constant', or 'cosine' or 'exponential' down to final_rate times it.
    config.schedule = "constant"
    config.final_rate = 0.01  # of a schedule that decays, as a share of the learning rate
    config.warmup = 0.0  # share of training in which the rate rises from 0; under any schedule
    config.l2 = 0.0  # the objective is loss + l2/2 · ‖W‖²; the bias is not penalised
    config.label_smoothing = 0.0  # s: labels get 1 - s on themselves, and s/C on every class
    # Share of training, at its end, over which the weights are averaged (0: the last weights).
    config.averaging = 0.0
    config.early_stopping = config_dict.ConfigDict()
    # A trial stops after so many epochs without a better select_metric, and has then the weights of
    # its best epoch whatever select_epoch says; 0: it never stops.
    config.early_stopping.patience = 0
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
    config.sweep.label_smoothing = ()
    config.sweep.warmup = ()
    config.sweep.final_rate = ()
    config.sweep.averaging = ()
    config.sweep.patience = ()
    config.sweep.batch_size = ()
    config.sweep.num_samples = ()
    config.sweep.seed = ()
    # 'product': every combination of the axes; 'zip': the i-th setting has the i-th value of every
    # axis of hyperparameters (seeds and batch sizes combine with each of them all the same).
    config.combine = "product"
    # An axis of so many l2, from the smallest worth trying to (almost) zero weights; 0: none.
    config.l2_path = 0
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
    config.refit = False  # train the selected setting anew on train and val together

    # Studies of the train split at the certified optimum, with the selected l2.
    config.learning_curve = config_dict.ConfigDict()
    config.learning_curve.sizes = ()  # numbers of training examples, of nested subsets; (): none
    config.learning_curve.seeds = 3  # draws of the subsets
    config.audit_folds = 0  # K folds that judge each other's labels (audit.csv, audit.png); 0: none

    # Output.
    config.predictions = False  # predictions.npz: probabilities and labels for val and test
    # What each action (column) costs for each class (row), to compare argmax with the decision of
    # least expected cost; (): no costs.
    config.cost_matrix = ()
    config.tensorboard = False  # event files too; needs tensorboardX
    config.checkpoint_seconds = 30  # between two checkpoints; 0: one after every epoch
    config.keep = 2  # checkpoints that are kept

    # Devices: how many share the trials, the examples of a minibatch, the classes (they must divide
    # their number); -1: all others.
    config.mesh = config_dict.ConfigDict()
    config.mesh.trials = -1
    config.mesh.batch = 1
    config.mesh.classes = 1

    return config.lock()
