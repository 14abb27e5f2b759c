"""What a request meets before the routes: connections with limits, and rules for browsers."""
