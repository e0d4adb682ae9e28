"""The one way out: every connection that a client's words can cause is opened here. Torch-free.

A name is resolved once, each address that it has is looked at, and the connection goes to one of those very addresses;
so a name that answers otherwise a moment later (DNS rebinding) leads nowhere. Addresses that are not of the public
internet are refused, unless the operator allows them (`TRAINYARD_ALLOWED_NETWORKS`) or wrote them down himself.
"""

from training_core.outgoing.connect import Denied, check_host
from training_core.outgoing.networks import Networks
from training_core.outgoing.pools import pool_manager

__all__ = ["Denied", "Networks", "check_host", "pool_manager"]
