"""Market data: channel names, decoding of messages, order books, tickers, and conditions that make market events."""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = [
    "channels",
    "conditions",
    "edge_detector",
    "market_feed",
    "market_state",
    "messages",
    "order_book",
    "pairs",
    "sampling",
    "schedule",
    "subject",
    "ticker",
    "top_of_book",
    "watch",
    "watcher_memory",
]
