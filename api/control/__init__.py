"""The control loops: dispatcher, recorder and janitor, one file each, run by `python -m api.control`."""
