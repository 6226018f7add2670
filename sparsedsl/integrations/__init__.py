"""sparsedsl inside other people's models: a torch module, and attention for Hugging Face's transformers."""
