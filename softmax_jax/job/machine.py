"""The machine that a job runs on: its devices, its software, its cache of compiled programs."""

import importlib.metadata

import jax

from softmax_jax.data.source import user_cache

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
