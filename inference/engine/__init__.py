"""The prediction engine: photos in, masks out, on a CPU or a GPU."""
