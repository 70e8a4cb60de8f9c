"""What the kernel keeps from the governed side. `confine` says in which order; the other files each know one means."""
