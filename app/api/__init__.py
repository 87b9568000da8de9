"""The HTTP surface. Routes read their inputs, call one service and return what it says."""
