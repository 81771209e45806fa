"""Stand-ins for what one process cannot hold: registries, skopeo and ECS. They mirror the modules that they replace."""
