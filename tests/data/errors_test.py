from softmax_jax import data


def test_a_dataset_that_is_not_found_is_a_data_error_which_is_a_value_error():
    assert issubclass(data.DatasetNotFoundError, data.DataError)
    assert issubclass(data.DataError, ValueError)
