"""Registers, error codes and identity of the engine.

Only in bitsmith's own tree: a bundle has this file with plain numbers instead (``hwgen.driver.render_registers``).
"""

from hwgen import isa

DEVICE_ID = isa.DEVICE_ID
DEVICE_VERSION = isa.DEVICE_VERSION
OFFSET = {item.name: item.offset for item in isa.REGISTERS}
ERROR_MEANING = {int(code): meaning for code, meaning in isa.ERROR_MEANING.items()}
STAGE = {int(stage): stage.name.lower().replace("_", "-") for stage in isa.Stage}
