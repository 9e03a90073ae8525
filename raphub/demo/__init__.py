"""What does raphub do, seen in a minute? `raphub demo` shows it, on this machine and measured."""
