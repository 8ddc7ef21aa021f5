"""A thin worker for Gristmill: handlers in Python, exactly once. Standard library only."""

from .context import Context, Deferred, Failed
from .wire import Control, Event, Input, Invoke, Message, Response, Timer
from .worker import Worker

__all__ = [
    "Context", "Control", "Deferred", "Event", "Failed", "Input", "Invoke", "Message", "Response", "Timer", "Worker",
]
