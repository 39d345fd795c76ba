"""A language of 100,000 words: softmax without the logits, on samples, judged exactly.

    python main.py --config=configs/large_vocabulary.py

200,000 pairs of words of a language made on the spot (Zipf's law, 1,000 contexts, 32 features),
four epochs of sampled softmax with 5,000 words a batch: half a minute on 2 CPU cores. Validation
is exact, and so is the distance to the language itself in summary.json: expect a validation loss
of 7.5 nats, where the language has an entropy of 6.67, and KL(language ‖ model) = 0.84. The logits
of a batch, 0.4 GB, are never there. The exact loss takes some twenty times as long for the same
steps:

    python main.py --config=configs/large_vocabulary.py --config.loss=linear_cross_entropy \\
        --config.num_samples=0
"""

from softmax_jax.configs import bigram, default


def get_config():
    """The default config on a bigram language made on the spot, with sampled softmax."""
    config = default.get_config()
    config.dataset = bigram.BIGRAM
    config.loss = "sampled_softmax"
    config.num_samples = 5000
    config.init_scale = 0.0
    config.batch_size = 1000
    config.num_epochs = 4
    config.learning_rate = 30.0
    config.momentum = 0.9
    config.schedule = "cosine"
    return config
