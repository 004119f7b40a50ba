"""A photographic studio: generated cars on a turntable, in the competition's own format."""
