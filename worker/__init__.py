"""What runs behind the queue: actors, the delivery pump and the sweeper."""
