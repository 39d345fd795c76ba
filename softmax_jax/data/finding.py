"""Where a dataset is, by its name."""

import difflib
import os

from softmax_jax.data import bigram, embedded, fashion_mnist, features, prepared
from softmax_jax.data.download import download
from softmax_jax.data.errors import DatasetNotFoundError
from softmax_jax.data.source import Source, data_folders, user_cache


def find(name: str, data_dir: str | os.PathLike | None) -> Source:
    """Finds a dataset in the first place that has it; its arrays are not yet read.

    Folders are data_dir, $TFDS_DATA_DIR, ~/tensorflow_datasets, in this order. In them are looked
    for a dataset prepared by TFDS, and then the four IDX files of Fashion-MNIST. If these are
    nowhere, they are downloaded into `data_dir/fashion_mnist`, or without a data_dir into
    $XDG_CACHE_HOME/softmax_jax/fashion_mnist. The names in `embedded.NAMES` come from
    scikit-learn; 'bigram' and 'bigram:V' are made on the spot. A name that is a path (see
    `features.is_path`) is that file or folder.

    Raises:
      DatasetNotFoundError: there is no such dataset, or it cannot be downloaded.
      DataError: the files are damaged.
    """
    if name in embedded.NAMES:
        return embedded.source(name)
    if name.partition(":")[0] == bigram.NAME:
        return bigram.source(name)
    if features.is_path(name):
        return features.source(name)
    folders = data_folders(data_dir)
    folder = prepared.find(name, folders)
    if folder:
        source = prepared.source(name, folder)
        is_fashion = folder.parent.name == fashion_mnist.NAME
        return source._replace(label_names=fashion_mnist.LABEL_NAMES) if is_fashion else source
    if name == fashion_mnist.NAME:
        return _find_fashion_mnist(data_dir)
    known = sorted({*embedded.NAMES, fashion_mnist.NAME} | prepared.names(folders))
    near = difflib.get_close_matches(name, known) or known
    raise DatasetNotFoundError(
        f"There is no dataset {name!r} prepared by TFDS in {', '.join(map(str, folders))}. "
        f"Names nearest to it here: {', '.join(near)}. For another one, prepare it with TFDS "
        "(file_format='array_record') and set data_dir or TFDS_DATA_DIR to its folder. Features of "
        "your own are a .npz file or a folder with x_train.npy and y_train.npy."
    )


def _find_fashion_mnist(data_dir: str | os.PathLike | None) -> Source:
    folders = data_folders(data_dir)
    files = fashion_mnist.find([*folders, user_cache()])
    if not files:
        target = (folders[0] if data_dir else user_cache()) / fashion_mnist.NAME
        try:
            download(target)
        except DatasetNotFoundError as error:
            raise DatasetNotFoundError(
                f"Fashion-MNIST is not in {', '.join(map(str, folders))}. {error}. Do one of "
                "these: prepare it with TFDS (file_format='array_record') and set TFDS_DATA_DIR "
                "to its folder; put its four IDX files (train-images-idx3-ubyte.gz, ...) into "
                "data_dir; or allow the network."
            ) from error
        files = fashion_mnist.find([target])
    return fashion_mnist.source(files)
