"""Examples: documents to send, labels to train on, collectors to copy from."""
