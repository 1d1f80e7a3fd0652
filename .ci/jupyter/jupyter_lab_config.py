"""JupyterLab for `make lab`, beside the settings in labconfig/: a style sheet of this project's own."""

from pathlib import Path

c.LabApp.custom_css = True  # noqa: F821 (c is what JupyterLab gives this file)
c.ServerApp.tornado_settings = {"static_custom_path": [str(Path(__file__).parent / "custom")]}  # noqa: F821
