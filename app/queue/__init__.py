"""The only place that knows Redis and Dramatiq: intake, hardened broker, doorbell."""
