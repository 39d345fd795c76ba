"""The machine that a job runs on: its devices, its software, its cache of compiled programs."""

import importlib.metadata

import jax

from softmax_jax.data.source import user_cache
from softmax_jax.job.errors import JobError
from softmax_jax.sweep import memory
from softmax_jax.sweep.placement import AXES, place

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def use_compilation_cache():
    """Compiled programs outlive the process: the second run of a config compiles nothing.

    They are kept under $XDG_CACHE_HOME/softmax_jax (default ~/.cache), unless JAX was told a place.
    """
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(user_cache() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def use_precision(precision):
    """float64 has to be switched on before the first array is made."""
    jax.config.update("jax_enable_x64", precision == "float64")


def start():
    """Starts the devices. Raises JobError (exit code 2) where those asked for are not to be had.

    Of several processes all do so together: here they agree on the memory that they plan with.
    """
    try:
        jax.devices()
        memory.device_bytes()
    except (RuntimeError, AssertionError) as error:  # the latter without a plugin for the platform
        wanted = jax.config.jax_platforms or ""
        reason = (str(error).splitlines() or ["it knows none of that kind"])[0].rstrip(".")
        raise JobError(
            f"JAX has no device for JAX_PLATFORMS={wanted}: {reason}. See whether the machine has "
            "one, and whether the JAX for it is installed."
        ) from error


def mesh(config) -> dict:
    """{'trials': 8, 'batch': 1}: how many devices share what. Raises JobError (exit code 2).

    'classes' only where devices share them.
    """
    try:
        placement = place(**config.mesh)
    except ValueError as error:
        raise JobError(f"The config cannot be run on these devices: {error}") from error
    sizes = {axis: placement.size(axis) for axis in AXES}
    return {axis: size for axis, size in sizes.items() if axis != "classes" or size > 1}


def devices() -> dict:
    """Backend, kind and number of the devices."""
    return {
        "backend": jax.default_backend(),
        "device_kind": jax.local_devices()[0].device_kind,
        "device_count": jax.device_count(),
    }


def versions() -> dict:
    """{package: version} of what the numbers depend on."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}
