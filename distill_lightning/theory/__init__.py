"""Why ensembles and distillation work: what can be computed without a training of the program's own.

    computed.py         what such a function returns: `Computed`
    networks.py         small networks that are trained side by side, as one batched computation
    ridge.py            ridge regression on features or kernels, in closed form
    random_features.py  ridge regression on random features and on tangent kernels (Allen-Zhu & Li 2020, Fig. 3)
    gaussian_inputs.py  ensembles on Gaussian inputs (Allen-Zhu & Li 2020, Fig. 4)
    multi_view.py       which view of each class a network has learned (Allen-Zhu & Li 2020, section 3)

A study names a function that returns `Computed` in the place of a configuration, and ``distill compute`` calls it.
"""
