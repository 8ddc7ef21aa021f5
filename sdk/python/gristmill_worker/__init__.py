"""A thin worker for Gristmill: handlers in Python, exactly once. Standard library only."""

from .context import Context, Deferred, Failed
from .wire import Event, Input, Invoke, Message, Response, Timer
from .worker import Worker

__all__ = [
    "Context", "Deferred", "Event", "Failed", "Input", "Invoke", "Message", "Response", "Timer", "Worker",
]
