"""A request's images, told as they come: from the service to server-sent events."""
