"""What the market streams say: channels, order books, tickers, executions, and conditions on them."""

#: Modules that may be used from outside of this folder; tests/test_imports.py holds it.
__all__ = [
    "channels",
    "conditions",
    "edge_detector",
    "market_feed",
    "messages",
    "order_book",
    "pairs",
    "sampling",
    "ticker",
]
