"""Reads expert indices, activations and traces of Monet for Swift, and talks to its server."""

from .activations import Activations, Document, Scores
from .client import Client, Completion, ServerError
from .index import Context, Expert, Found, Index, IndexFormatError
from .trace import Trace, TracedToken

__all__ = [
    "Activations", "Client", "Completion", "Context", "Document", "Expert", "Found", "Index", "IndexFormatError",
    "Scores", "ServerError", "Trace", "TracedToken",
]
__version__ = "0.1.0"
