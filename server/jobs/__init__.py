"""Big batches of images that outlive requests and restarts."""
