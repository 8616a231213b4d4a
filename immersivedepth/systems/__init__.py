"""The depth systems that are trained, one file each: its network, data, losses, metrics and way to predict."""
