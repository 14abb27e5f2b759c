"""OpenAI's image API, answered by the models that are served here."""
