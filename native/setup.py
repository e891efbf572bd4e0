# SPDX-License-Identifier: Apache-2.0
"""Builds the compiled loops: two files of C against Python's stable ABI and the system's OpenSSL."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "atoll_fast",
            ["src/batch.c", "src/label.c"],
            depends=["src/atoll_fast.h"],
            libraries=["crypto"],
            extra_compile_args=["-O3", "-Wall", "-Wextra", "-Werror"],
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
