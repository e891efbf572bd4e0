# SPDX-License-Identifier: Apache-2.0
"""Nodes that run environments, on a virtual clock.

Stewards, holdings, runners and applications are the real ones; recorders, the network and clients are simulated.
``atoll.lab.environments`` tells the story, and ``checks`` says what must hold.
"""
