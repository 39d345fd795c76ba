"""A language of 100,000 words: softmax without the logits, exact and on samples.

python main.py --config=configs/large_vocabulary.py

"""

from configs import default


def get_config():
    """The default config on a bigram language made on the spot, with the exact loss."""
    config = default.get_config()
    config.dataset = "bigram"
    config.loss = "linear_cross_entropy"
    config.init_scale = 0.0
    config.batch_size = 1000
    config.num_epochs = 2
    config.learning_rate = 50.0
    return config
