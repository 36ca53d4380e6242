"""What is known of a death: its report, its signature, its class."""
