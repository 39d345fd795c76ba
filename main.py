"""Softmax regression from the command line: python main.py --config=configs/default.py

The same program as `softmax-jax train`.
"""

import sys

from softmax_jax.__main__ import train

if __name__ == "__main__":
    sys.exit(train(sys.argv))
