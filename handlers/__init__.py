"""What Lambda calls: each handler parses, calls one job, and maps the result."""
