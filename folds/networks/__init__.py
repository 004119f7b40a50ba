"""The networks: a plain U-Net, and a U-Net decoder on timm encoders."""
