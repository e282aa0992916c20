"""Stories of brokers, the controller, identities, groups and bounds."""
