"""bitsmith: from a PyTorch network to a verified mixed-precision FPGA accelerator.

The Python API is the path of the command line: ``prepare`` a recipe, ``search``, ``export``, ``generate``, ``verify``.
"""
