# SPDX-License-Identifier: Apache-2.0
"""``atoll demo``: the promise, shown on this machine in little more than a minute."""

import click

from atoll.cli.options import as_json

__all__ = ["demo"]


@click.command(short_help="The promise, on this machine.")
@click.option("--seed", type=click.IntRange(min=0), default=7, show_default=True, help="Decides every fault.")
# Not faster: the shortest trouble must last longer than the wait that is promised, or no promise could be missed.
@click.option("--speed", type=click.FloatRange(0.1, 2), default=1.0, show_default=True, help="Of the script.")
@click.option("--no-faults", is_flag=True, help="The same traffic on a healthy network.")
@as_json
def demo(*, seed: int, speed: float, no_faults: bool, as_json: bool) -> int:
    """Run five real nodes on an emulated wide-area network, break paths, and compare with the direct way.

    Ends with a verdict; exits non-zero if a promise is missed.
    """
    from atoll.lab import DemoOptions  # noqa: PLC0415 -- see below.
    from atoll.lab.demo import main  # noqa: PLC0415 -- brings the node and the emulator along.

    return main(DemoOptions(seed=seed, speed=speed, no_faults=no_faults, as_json=as_json))
