"""Use cases, shared by the API and the command line: plain functions over the parts below."""
