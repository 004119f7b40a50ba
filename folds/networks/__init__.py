"""The networks: a U-Net of our own, and the same decoder on timm's encoders."""
