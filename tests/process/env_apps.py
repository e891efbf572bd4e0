# SPDX-License-Identifier: Apache-2.0
"""Programs for tests of real nodes."""

COUNTER = """
import atoll

class Add(atoll.Tuple):
    n: int

class Sum(atoll.Tuple):
    n: int

class Counter(atoll.App):
    n: int = 0

    @atoll.on(Add)
    def add(self, add: Add, ctx: atoll.Context) -> Sum:
        self.n += add.n
        return Sum(self.n)
"""
