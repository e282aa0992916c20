"""The same clients without ``await``: each call runs on the loop of a thread of its own. No second
implementation."""
