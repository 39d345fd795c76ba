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

from softmax_jax.hyperparameters import TABLE, config_defaults


def get_config():
    """The default config: every field with its meaning."""
    config = config_dict.ConfigDict()

    # Data.
    # 'fashion_mnist', 'digits', a set prepared by TFDS, or the path of a .npz, .csv, .parquet, ...
    config.dataset = "fashion_mnist"
    config.dataset_fallback = "digits"  # if Fashion-MNIST is not to be had; '': an error instead
    config.data_dir = ""  # folder to look into first; '': TFDS_DATA_DIR, ~/tensorflow_datasets
    config.label_column = ""  # of a table (.csv, .tsv, .parquet): the column with the labels
    # Of a table the column (of an .npz the array, 'groups' by default) with the group of each
    # example, such as a patient: groups stay in one fold, and on one side of an 'auto' split.
    config.group_column = ""
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
    # Of the matrix products in training and validation: 'float32'; 'tensorfloat32' (accelerators
    # may round the inputs to 11 bits; on a CPU it is float32); 'bfloat16' (of weights, biases and
    # features, with float32 sums; the test figures are those of params.npz in float32); or
    # 'float64' (of everything).
    config.precision = "float32"

    # Training.
    # 'sgd', 'nesterov' (with momentum), 'adam' or 'adamw' (with beta1, beta2 and weight_decay; both
    # want a hundredth to a tenth of the rate); or 'lbfgs': the certified optimum, an iteration of
    # which is an epoch.
    config.optimizer = "sgd"
    config.tolerance = 1e-4  # of 'lbfgs': the relative gap to the optimum at which a trial stops
    config.num_epochs = 10  # passes over the training examples
    # The rate over training: 'constant', or 'cosine' or 'exponential' down to final_rate times it.
    config.schedule = "constant"
    # What an example of each class weighs in the objective: None (all the same), 'balanced'
    # (inversely to the size of the class), or a tuple of one number per class. It moves the
    # predicted classes; probabilities and losses are corrected for it.
    config.class_weight = config_dict.placeholder(object)

    # The hyperparameters: learning_rate, momentum, beta1, beta2, l2, l1, l1_group, weight_decay,
    # init_scale, label_smoothing, warmup, final_rate, averaging, early_stopping.patience,
    # batch_size, num_samples and seed. Their defaults, ranges and meanings are the table in
    # softmax_jax/hyperparameters.py. Each is an axis of a sweep, too: a field under config.sweep
    # that is empty means the single value.
    config.update(config_defaults())
    config.sweep = config_dict.ConfigDict({row.name: () for row in TABLE})
    # 'product': every combination of the axes; 'zip': the i-th setting has the i-th value of every
    # axis of hyperparameters (seeds and batch sizes combine with each of them all the same).
    config.combine = "product"
    # An axis of so many l2, from the smallest worth trying to (almost) zero weights; 0: none. With
    # 'lbfgs' it goes on downwards, by three decades at most, while the smallest is the best.
    config.l2_path = 0
    # An axis of so many l1, from a thousandth of the smallest that leaves no weight up to that one:
    # single weights become exactly zero; 0: none.
    config.l1_path = 0
    # The same of l1_group: the weights of a feature become zero in all classes; 0: none.
    config.l1_group_path = 0
    # Both judge settings within the train split (val_split then serves the pictures only), and end
    # in a refit of the chosen setting on the whole train split.
    config.folds = 0  # K of K-fold cross-validation; 0: none
    config.stratify = True  # each fold gets its share of every class
    # O outer folds: on each is measured what the folds of the other examples choose (nested
    # cross-validation), an estimate that nothing was chosen on. They take O · (K + 1) / K times as
    # long as the folds. 0: none
    config.outer_folds = 0
    config.bootstraps = 0  # R bootstrap draws, evaluated out of bag; 0: none
    # Successive halving: after min_epochs, factor · min_epochs, ... epochs the best 1/factor of the
    # settings go on, by select_metric; only those that are trained to the end can be selected.
    config.halving = config_dict.ConfigDict()
    config.halving.factor = 0  # 0: all settings are trained to the end
    config.halving.min_epochs = 1  # before settings are compared for the first time
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
    # out_of_fold.npz, with folds: the probabilities of each training example by the models that did
    # not see it, at the chosen setting.
    config.out_of_fold = False
    config.predictions = False  # predictions.npz: probabilities and labels for val and test
    # What each action (column) costs for each class (row), to compare argmax with the decision of
    # least expected cost; (): no costs.
    config.cost_matrix = ()
    config.tensorboard = False  # event files too, if tensorboardX is installed
    config.checkpoint_seconds = 30  # between two checkpoints; 0: one after every epoch
    config.keep = 2  # checkpoints that are kept

    # Devices.
    config.mesh = config_dict.ConfigDict()
    config.mesh.trials = -1  # how many devices share the trials; -1: all others
    config.mesh.batch = 1  # how many share the examples of a minibatch
    config.mesh.classes = 1  # how many share the classes; it must divide their number

    return config.lock()
