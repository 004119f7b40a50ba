"""Kaggle's API: the client with deadlines and retries, and the download of the competition's data."""
