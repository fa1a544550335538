"""Put conf/ into the package, with Hydra's plugin beside it; all else is in pyproject.toml."""

from setuptools import find_namespace_packages, setup

CONF = "imex_experiments.conf"

setup(
    packages=[
        *find_namespace_packages(
            include=["imex_experiments*", "hydra_plugins"], exclude=["*__pycache__"]
        ),
        CONF,
        *(f"{CONF}.{group}" for group in find_namespace_packages("conf")),
    ],
    package_dir={CONF: "conf"},
)
