"""What can go wrong, as exceptions whose text says why."""


class AcceleratorError(Exception):
    """Base of all errors of this package."""


class BundleError(AcceleratorError):
    """The bundle is damaged, of another version, or made for another bitstream than the one that is loaded."""


class ImageError(AcceleratorError, ValueError):
    """Images of a wrong type, shape or range."""


class DeviceError(AcceleratorError):
    """The engine stopped with an error.

    code: the engine's error code. info: its error_info register.
    """

    def __init__(self, text: str, code: int = 0, info: int = 0) -> None:
        super().__init__(text)
        self.code = code
        self.info = info


class DeviceTimeoutError(AcceleratorError, TimeoutError):
    """The engine made no progress for too long; the text holds the state of each stage."""
