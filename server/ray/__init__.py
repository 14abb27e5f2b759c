"""Serving on several machines with Ray Serve: routers in front of replicas, one a device."""
