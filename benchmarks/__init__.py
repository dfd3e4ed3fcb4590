"""How fast channels_groups is, beside its peers, in one run on one machine.

``python -m benchmarks`` runs every part, ``python -m benchmarks join`` one of them,
``--quick`` all of them in a small way, for their errors and not for their figures.
"""
