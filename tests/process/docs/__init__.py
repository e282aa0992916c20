"""What is written down for people, run as it stands: pages, dashboards, platforms, fixtures."""
