"""Cut-outs: the object of a photo with soft edges and clean colours, without torch."""
