"""Generated photos of cars on a turntable, in the format of the competition."""
