"""Stories of disks, damage, clocks, and what is lost or kept."""
