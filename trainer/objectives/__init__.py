"""What training minimises: pure functions of networks and batches."""
