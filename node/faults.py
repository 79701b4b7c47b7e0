"""What keeps a node from starting or going on, told to the operator without a traceback.

NodeFault
└── ListenFault     the public or internal port can't be opened
"""

from __future__ import annotations


class NodeFault(Exception):
    """Names the thing, the value and the mend; `chat-node run` prints it and exits with 1."""


class ListenFault(NodeFault):
    """A port can't be opened."""
