"""The commands: flags, one call in `ecr_relay.operate`, print. Imports of anything but click wait until one runs."""
