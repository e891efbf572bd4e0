# SPDX-License-Identifier: Apache-2.0
"""Builds the compiled loop: one file of C against Python's stable ABI and the system's OpenSSL."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "atoll_fast",
            ["src/batch.c"],
            libraries=["crypto"],
            extra_compile_args=["-O2", "-Wall", "-Wextra", "-Werror"],
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
