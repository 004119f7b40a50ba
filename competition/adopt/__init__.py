"""``make adopt``: a data folder from photos and masks in another layout."""
