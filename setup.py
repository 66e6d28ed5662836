"""What setup.cfg cannot declare: the native kernels, an extension that featx works without."""

from pathlib import Path

from setuptools import Extension, setup

CPP = Path("featx/engine/cpp")

setup(
    ext_modules=[
        # a plain library, called through ctypes (featx/engine/native.py): it is the same for every Python. A compiler
        # that is missing or refuses costs speed only, and `featx info --engine` says so.
        Extension(
            "featx.engine._native",
            sources=[str(path) for path in sorted(CPP.glob("*.cpp"))],
            depends=[str(path) for path in sorted(CPP.glob("*.h"))],
            extra_compile_args=["-O3", "-std=c++17", "-fopenmp", "-fvisibility=default"],
            extra_link_args=["-fopenmp"],
            optional=True,
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
