"""Training, evaluation and use of the classifier. Knows nothing of the rest but ``app.domain``."""
