"""Where the time of single requests goes, for OpenTelemetry. Nothing here runs unless that is configured."""
