"""The shared journal's decisions, one by one."""
