"""Training side of bitsmith: bit search (EBS), retraining, and export to the integer network.

``model.prepare(module, shape)`` makes a module of supported layers searchable; see ``model.frontend``.
"""

from model.frontend import prepare

__all__ = ["prepare"]
