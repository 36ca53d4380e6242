"""Default configuration, built-in simulator models, systemd unit, udev rule."""
