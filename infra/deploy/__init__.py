"""Images for containers where no registry can be reached, and what a compose stack is made of.

Imports schemas and infra.native."""
