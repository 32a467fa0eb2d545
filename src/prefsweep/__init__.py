"""prefsweep: align small language models to preferences."""

from pathlib import Path

__version__ = "0.1.0"


def config_folder() -> Path:
    """Where `conf/` lies: at the top of a checkout, inside the package once installed from a wheel."""
    installed = Path(__file__).parent / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "conf"
