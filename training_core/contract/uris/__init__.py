"""What a URI may say, whatever field it stands in. Torch-free: the API asks at submission, the worker when it opens.

`parse` reads `scheme://place` and archives over one (`zip://inside::s3://pets/all.zip`); `check_endpoint` reads the
address of a service. What they refuse raises `Refused`, in words that never repeat the value: it may hold a credential.
Whether a place may be read at all is decided elsewhere: by the operator's lists (`data/sources/places.py`), and by the
address behind a name (`outgoing/`).
"""

from training_core.contract.uris.links import CONTAINERS, UPLOAD, WEB, Link, check_endpoint, parse, parse_link
from training_core.contract.uris.text import Refused

__all__ = ["CONTAINERS", "UPLOAD", "WEB", "Link", "Refused", "check_endpoint", "parse", "parse_link"]
